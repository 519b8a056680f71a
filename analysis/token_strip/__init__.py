"""The interlinear token strip: rows of tokens aligned by character, drawn in the browser, by the app and in a notebook.

`rows` says what is drawn, `packing` how it travels; the .js files beside them draw it, and `script` gives them as one.
The room knows neither models nor the app: `analysis/strips` turns results into a `Strip`. Token text reaches the page
only through `textContent`.
"""
