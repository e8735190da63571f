# Memory that a call needs besides its inputs and outputs, against sequence length.
fb_x_label = 'sequence length N, tokens'
fb_y_label = 'workspace and saved memory'
fb_base = 2
fb_ratio = 0
fb_ideal = 0
load fb_scripts . '/lines.gp'
