# Test metric against the time of a training step: to the left is faster, up is better.
load fb_scripts . '/training.gp'
set xlabel 'time of a training step, ms'
set logscale x 2
set ylabel fb_metric . ' (test)'
set offsets graph 0.1,graph 0.1,graph 0.1,graph 0.1
set errorbars small
plot for [i = 1:fb_lines] fb_data index i - 1 using 1:2:3:4 with yerrorbars pt 5 + 2 * fb_dash[i] \
        ps 0.9 lw 1.5 lc rgb fb_color[i] title fb_label[i]
unset output
