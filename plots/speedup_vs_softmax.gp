# Time of softmax over time of the mechanism, against sequence length.
fb_x_label = 'sequence length N, tokens'
fb_y_label = 'times as fast as softmax'
fb_base = 2
fb_ratio = 1
fb_ideal = 0
load fb_scripts . '/lines.gp'
