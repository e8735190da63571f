# Time against the head dimension: median and 95 % interval.
fb_x_label = 'head dimension d'
fb_y_label = 'time per call'
fb_base = 2
fb_ratio = 0
fb_ideal = 0
load fb_scripts . '/lines.gp'
