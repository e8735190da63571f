# Measured time over the least time that this machine needs for the work.
fb_x_label = 'sequence length N, tokens'
fb_y_label = 'time over the floor'
fb_base = 2
fb_ratio = 1
fb_ideal = 0
load fb_scripts . '/lines.gp'
