# Trends of stored runs: one panel per case, medians with intervals, levels, changes with commits.
# Expects what flowbench writes for `history show --plot`, and fb_format: svg or png.
set encoding utf8
fb_columns = fb_panels == 1 ? 1 : 2
fb_rows = (fb_panels + fb_columns - 1) / fb_columns
fb_panel_width = fb_columns == 1 ? 900 : 640
fb_panel_height = fb_columns == 1 ? 420 : 270
fb_width = fb_columns * fb_panel_width
fb_height = fb_rows * fb_panel_height
if (fb_format eq 'png') {
    set terminal pngcairo size 2*fb_width,2*fb_height enhanced background rgb 'white' \
        font 'Sans,11' fontscale 2 linewidth 2 pointscale 2 dashlength 0.7
} else {
    set terminal svg size fb_width,fb_height enhanced background rgb 'white' font 'Sans,11' \
        dashlength 0.7
}
set output fb_out . '.' . fb_format
set border 3 lw 1 lc rgb '#404040'
set tics nomirror out scale 0.8,0.4 textcolor rgb '#202020'
set grid ytics lt 1 lc rgb '#e4e4e4' lw 0.7
set errorbars small
set logscale y
set key off
set multiplot
do for [p = 1:fb_panels] {
    fb_column = (p - 1) % fb_columns
    fb_row = (p - 1) / fb_columns
    set lmargin at screen (fb_column * fb_panel_width + 78.0) / fb_width
    set rmargin at screen ((fb_column + 1) * fb_panel_width - 22.0) / fb_width
    set tmargin at screen 1 - (fb_row * fb_panel_height + 52.0) / fb_height
    set bmargin at screen 1 - ((fb_row + 1) * fb_panel_height - 54.0) / fb_height
    unset label
    set label 1 fb_title[p] at graph 0,graph 1 offset 0,1.5 left font ',12' noenhanced front
    set label 2 fb_machine[p] at graph 0,graph 1 offset 0,0.5 left font ',9' \
        tc rgb '#707070' noenhanced front
    set xlabel 'run, in the order of commits' offset 0,0.5 font ',10'
    set ylabel fb_unit[p] offset 0.5,0
    set xrange [0.3:fb_runs[p] + 0.7]
    set yrange [fb_low[p]:fb_high[p]]
    # Ticks of a narrow range on a logarithmic axis: chosen here, gnuplot would give one or none.
    fb_step = 10.0 ** floor(log10((fb_high[p] - fb_low[p]) / 3))
    fb_step = (fb_high[p] - fb_low[p]) / fb_step > 12 ? 4 * fb_step : \
        (fb_high[p] - fb_low[p]) / fb_step > 6 ? 2 * fb_step : fb_step
    unset ytics
    set ytics nomirror out scale 0.8,0.4 fb_step format '%g'
    set ytics ()
    fb_tick = ceil(fb_low[p] / fb_step) * fb_step
    while (fb_tick <= fb_high[p]) {
        set ytics add (sprintf('%g', fb_tick) fb_tick)
        fb_tick = fb_tick + fb_step
    }
    fb_b = 3 * (p - 1)
    s = fb_scale[p]
    plot fb_data index fb_b + 2 using 1:(fb_high[p]):(0):(fb_low[p] - fb_high[p]):3 \
            with vectors nohead lw 1 dt 2 lc rgb '#a0a0a0', \
        fb_data index fb_b using 1:($2 / s):($3 / s):($4 / s) with yerrorbars \
            pt 0 lw 0.8 lc rgb '#9db8d2', \
        fb_data index fb_b using 1:($2 / s) with points pt 7 ps 0.35 lc rgb '#1f5a96', \
        fb_data index fb_b + 1 using 1:($2 / s) with lines lw 2 lc rgb '#d95f02', \
        fb_data index fb_b + 2 using 1:(fb_high[p]):4 with labels left offset 0.4,-0.7 \
            font ',9' tc rgb '#404040' noenhanced
}
unset multiplot
unset output
