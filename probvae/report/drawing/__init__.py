"""Drawing: what figures have in common, whatever they show.

In: the look, sizes and axes (``style.py``), arrays and limits (``arrays.py``), classes as colours (``classes.py``),
points with their legend (``points.py``), images and panels side by side (``tiles.py``), and figures on disk
(``figure_files.py``). Everything takes numpy arrays; nothing here imports torch or pyplot, or leaves a setting of
matplotlib changed. Out: figures that show something of a VAE (``figures/``).

The door is :func:`~probvae.report.drawing.style.styled`, the decorator of every figure, with
:func:`~probvae.report.drawing.style.new_figure`.
"""
