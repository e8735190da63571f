# Lines with interval bars on logarithmic axes; marks for what was not measured; crossings.
# Expects fb_y_label, fb_x_label, and fb_base (of the x axis).
load fb_scripts . '/common.gp'
set logscale x fb_base
set logscale y
set multiplot
do for [p = 1:fb_panels] {
    load fb_scripts . '/panel.gp'
    set xlabel fb_x_label offset 0,0.3
    if (p == 1) { set ylabel fb_y_label } else { unset ylabel; eval 'set ytics ' . fb_blank_y_tics }
    do for [c = 1:fb_crossings] {
        if (fb_cross_panel[c] == p) {
            set arrow from fb_cross_x[c],fb_cross_y[c] to fb_cross_x[c],fb_cross_label_y[c] \
                nohead lw 1.2 dt 3 lc rgb fb_cross_color[c] back
            set label fb_cross_label[c] at fb_cross_x[c],fb_cross_label_y[c] left offset 0.4,0 \
                tc rgb fb_cross_color[c] font ',10' front
            set label '' at fb_cross_x[c],fb_cross_y[c] \
                point pt 12 ps 1.5 lw 1.6 lc rgb fb_cross_color[c] front
        }
    }
    fb_a = fb_first[p]; fb_b = fb_last[p]
    plot for [i = fb_a:fb_b] fb_data index i - 1 using 1:2:3:4 with yerrorbars \
            pt 0 lw 1 lc rgb fb_line_color[i] notitle, \
        for [i = fb_a:fb_b] fb_data index i - 1 using 1:2 with linespoints \
            lw 1.8 dt fb_line_dash[i] pt fb_line_symbol[i] ps 0.75 lc rgb fb_line_color[i] \
            title fb_line_label[i], \
        for [m = 1:(fb_marks[p] > 0)] fb_data index fb_mark_block[p] using 1:2:3:4 \
            with points pt variable lc rgb variable ps 1.1 lw 1.5 notitle, \
        for [w = 1:fb_whys[p]] NaN with points \
            pt fb_why_symbol[4 * (p - 1) + w] ps 1.1 lw 1.5 lc rgb '#505050' \
            title 'not measured: ' . fb_why_name[4 * (p - 1) + w], \
        for [r = 1:(fb_ratio)] 1 with lines lw 1.4 dt 2 lc rgb '#808080' title fb_reference, \
        for [i = fb_a:(fb_ideal ? fb_b : fb_a - 1)] fb_data index i - 1 \
            using 1:($0 == 0 ? (fb_x0 = $1, fb_y0 = $2, $2) : fb_y0 * fb_x0 / $1) with lines \
            lw 1.2 dt 3 lc rgb fb_line_color[i] notitle, \
        for [j = 1:(fb_ideal)] NaN with lines lw 1.2 dt 3 lc rgb '#505050' title fb_reference, \
        for [r = 1:(fb_crossed[p])] NaN with points pt 12 ps 1.5 lw 1.6 lc rgb '#505050' \
            title fb_reference
}
unset multiplot
unset output
