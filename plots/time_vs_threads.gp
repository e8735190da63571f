# Time against the number of threads: median and 95 % interval, and what it would be if the first
# time were shared out among the threads.
fb_x_label = 'threads'
fb_y_label = 'time per call'
fb_base = 2
fb_ratio = 0
fb_ideal = 1
load fb_scripts . '/lines.gp'
