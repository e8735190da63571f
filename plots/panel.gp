# Prepares panel p of a picture: margins, its title, its legend below the axis, its notes.
unset label
unset arrow
if (p == 1) {
    set label 1 fb_title at screen fb_sx(fb_left(1)),fb_sy(20) left font ',15' noenhanced front
    set label 2 fb_subtitle at screen fb_sx(fb_left(1)),fb_sy(42) left tc rgb '#505050' front
}
set lmargin at screen fb_sx(fb_left(p))
set rmargin at screen fb_sx(fb_right(p))
set tmargin at screen fb_sy(84)
set bmargin at screen fb_sy(84 + fb_plot_height)
set label 3 fb_panel_title[p] at screen fb_sx(fb_left(p)),fb_sy(70) left font ',12' front
# gnuplot counts entries of empty iterations too, so one column needs slack to stay one.
fb_max_rows = fb_columns == 1 ? fb_rows + 8 : fb_rows
set key at screen fb_sx(fb_left(p) - 6),fb_sy(84 + fb_plot_height + 60) \
    left top vertical Left reverse maxrows fb_max_rows maxcols fb_columns samplen (fb_crowded ? 2 : 2.6) \
    spacing 1.15 width 0
if (fb_crowded) { set key font ',8' } else { set key font ',11' }
fb_notes_here = value(sprintf('fb_notes_%d', p))
do for [n = 1:fb_notes_here] {
    eval sprintf('set label %d fb_note_%d_%d[1] at screen fb_sx(%f),fb_sy(%f) left tc rgb "#505050" font ",10"', \
        20 + n, p, n, fb_left(p), 84 + fb_plot_height + 74 + fb_row * fb_rows + 16 * (n - 1))
}
