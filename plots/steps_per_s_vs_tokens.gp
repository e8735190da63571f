# Training steps per second against the tokens of a sequence: medians over seeds with their intervals.
load fb_scripts . '/training.gp'
set xlabel 'tokens of a sequence'
set ylabel 'training steps per second'
stats fb_data using 1 name 'fb_x' nooutput
stats fb_data using 3 name 'fb_low' nooutput
stats fb_data using 4 name 'fb_high' nooutput
set logscale x
set logscale y 2
set xrange [fb_x_min / 1.1 : fb_x_max * 1.1]
set yrange [fb_low_min / 1.2 : fb_high_max * 1.2]
set errorbars small
plot for [i = 1:fb_lines] fb_data index i - 1 using 1:2:3:4:xtic(1) with yerrorlines lw 2 dt fb_dash[i] \
        pt 5 + 2 * fb_dash[i] ps 0.8 lc rgb fb_color[i] title fb_label[i]
unset output
