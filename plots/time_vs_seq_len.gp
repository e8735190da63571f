# Time against sequence length: median, 95 % interval, fitted exponent, crossing with softmax.
fb_x_label = 'sequence length N, tokens'
fb_y_label = 'time per call'
fb_base = 2
fb_ratio = 0
fb_ideal = 0
load fb_scripts . '/lines.gp'
