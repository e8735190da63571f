# Time against the number of threads: median and 95 % interval.
fb_x_label = 'threads'
fb_y_label = 'time per call'
fb_base = 2
fb_ratio = 0
load fb_scripts . '/lines.gp'
