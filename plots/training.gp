# What pictures of training runs share. Expects what flowbench writes to <run>/plots/data/<picture>.gp,
# and fb_format: svg or png.
set encoding utf8
fb_width = 760
fb_height = 470 + 20 * fb_lines
if (fb_format eq 'png') {
    set terminal pngcairo size 2*fb_width,2*fb_height enhanced background rgb 'white' \
        font 'Sans,11' fontscale 2 linewidth 2 pointscale 2 dashlength 0.7
} else {
    set terminal svg size fb_width,fb_height enhanced background rgb 'white' font 'Sans,11' dashlength 0.7
}
set output fb_out . '.' . fb_format
set border 3 lw 1 lc rgb '#404040'
set tics nomirror out scale 0.8,0.4 textcolor rgb '#202020'
set grid xtics ytics lt 1 lc rgb '#e4e4e4' lw 0.7
set title fb_title noenhanced
set ylabel fb_metric
# The key stands below the axis' name, in the room that its lines take.
set bmargin at screen (20.0 * fb_lines + 66) / fb_height
set key at screen 0.06,(20.0 * fb_lines + 12) / fb_height left top Left reverse vertical \
    maxrows fb_lines noenhanced samplen 3
