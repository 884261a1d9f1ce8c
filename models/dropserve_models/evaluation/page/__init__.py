"""The report as one HTML page that loads nothing from elsewhere.

drawing, picture                  axes as inline SVG, in the page's own colours
calibration, ranking, training    one function a picture
html, style                       the page around them
"""

from dropserve_models.evaluation.page.html import as_html

__all__ = ["as_html"]
