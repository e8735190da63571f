# The look that all pictures share: terminal, fonts, title, the place of each panel.
# Expects what flowbench writes to <run>/plots/data/<picture>.gp, and fb_format: svg or png.
# Sizes are in pixels of the SVG; the PNG has twice as many.
set encoding utf8
fb_width = fb_panels == 2 || fb_crowded ? 1200 : 700
fb_plot_height = 400
fb_row = 20
fb_below = 66 + fb_row * fb_rows + 16 * fb_notes + 14
fb_height = 84 + fb_plot_height + fb_below
if (fb_format eq 'png') {
    set terminal pngcairo size 2*fb_width,2*fb_height enhanced background rgb 'white' \
        font 'Sans,11' fontscale 2 linewidth 2 pointscale 2 dashlength 0.7
} else {
    set terminal svg size fb_width,fb_height enhanced background rgb 'white' font 'Sans,11' dashlength 0.7
}
set output fb_out . '.' . fb_format

# Places on the screen, from pixels counted from the left and from the top.
fb_sx(px) = px / (1.0 * fb_width)
fb_sy(px) = 1 - px / (1.0 * fb_height)
fb_left(p) = p == 1 ? 112 : 112 + 516 + 32
fb_right(p) = fb_panels == 2 ? fb_left(p) + 516 : fb_width - 24

set border 3 lw 1 lc rgb '#404040'
set tics nomirror out scale 0.8,0.4 textcolor rgb '#202020'
set grid xtics ytics lt 1 lc rgb '#e4e4e4' lw 0.7, lt 1 lc rgb '#f2f2f2' lw 0.5
set errorbars small
set xrange [fb_x_min:fb_x_max]
set yrange [fb_y_min:fb_y_max]
