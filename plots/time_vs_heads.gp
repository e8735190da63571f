# Time against the number of heads: median and 95 % interval.
fb_x_label = 'heads H'
fb_y_label = 'time per call'
fb_base = 2
fb_ratio = 0
fb_ideal = 0
load fb_scripts . '/lines.gp'
