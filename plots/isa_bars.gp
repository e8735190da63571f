# Speed-up of each mechanism by instruction set over the weakest one, with the time above the bar.
load fb_scripts . '/common.gp'
set style fill solid 0.9 noborder
set multiplot
do for [p = 1:fb_panels] {
    load fb_scripts . '/panel.gp'
    set grid noxtics
    set format y (p == 1 ? '%g' : '')
    set ylabel (p == 1 ? 'times as fast as ' . fb_reference : '')
    plot for [i = fb_first[p]:fb_last[p]] fb_data index i - 1 \
            using 1:2:(0.92 * fb_bar_width) with boxes lc rgb fb_line_color[i] \
            title fb_line_label[i], \
        for [i = fb_first[p]:fb_last[p]] fb_data index i - 1 \
            using 1:2:5 with labels left rotate by 90 offset 0,0.3 font ',9' notitle
}
unset multiplot
unset output
