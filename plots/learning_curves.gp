# Metric of the evaluated split against training steps: the mean of the seeds in their band.
load fb_scripts . '/training.gp'
set xlabel 'training steps'
set ylabel fb_metric . ' (' . fb_split . ')'
plot for [i = 1:fb_lines] fb_data index i - 1 using 1:3:4 with filledcurves fs transparent solid 0.15 \
        noborder lc rgb fb_color[i] notitle, \
    for [i = 1:fb_lines] fb_data index i - 1 using 1:2 with lines lw 2 dt fb_dash[i] \
        lc rgb fb_color[i] title fb_label[i]
unset output
