"""The page's stylesheet. Colours are tell-apart in light and dark, and for the colour-blind (Okabe & Ito)."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1d2126; --soft: #59626d; --faint: #8a929c; --grid: #e8e9e6;
  --line: #e3e4e0; --first: #0072b2; --second: #c8501e; --third: #00825f; --fourth: #9a5b8a;
  --note: #fff6dd; --note-line: #d9a514;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1c2025; --ink: #e6e8ea; --soft: #a3acb6; --faint: #7d8791; --grid: #2d3239;
    --line: #2e343b; --first: #58b4e8; --second: #ef8a5a; --third: #3fc8a0; --fourth: #cf9ac2;
    --note: #2d2817; --note-line: #b98d1b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 {
  font-size: 2.1rem; line-height: 1.15; letter-spacing: -.015em; margin: .1rem 0 1.4rem;
  overflow-wrap: anywhere;
}
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 3.2rem 0 1rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 .6rem; }
.kind { margin: 0; color: var(--soft); font-size: .85rem; letter-spacing: .04em; }
.facts { display: flex; flex-wrap: wrap; gap: .9rem 2.4rem; margin: 0; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.note {
  background: var(--note); border-left: 3px solid var(--note-line); border-radius: 3px; margin: 1.4rem 0 0;
  padding: .6rem 1rem; overflow-wrap: anywhere;
}
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 2.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
th, td { padding: .34rem 1.1rem; text-align: right; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--faint); color: var(--soft); font-weight: 500; font-size: .85rem; }
tbody th { text-align: left; font-weight: 500; padding-left: 0; }
tbody tr:not(.child) > * { border-top: 1px solid var(--line); }
tbody tr:first-child > * { border-top: 0; }
.child th { padding-left: 1.3rem; color: var(--soft); font-weight: 400; }
.error { color: var(--soft); display: inline-block; min-width: 5em; text-align: left; white-space: pre; }
.arrow { color: var(--faint); margin-left: .45em; font-size: .85em; }
abbr { text-decoration: none; cursor: help; }
small { display: block; max-width: 18rem; color: var(--soft); font-weight: 400; white-space: normal; }
.key { color: var(--soft); font-size: .85rem; margin: .8rem 0 0; }
.pictures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1.4rem;
  margin-top: 2rem;
}
figure {
  margin: 0; padding: 1.2rem 1.3rem 1.3rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; break-inside: avoid;
}
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .9rem; }
.glossary {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .9rem 2.4rem;
  margin: 0; font-size: .92rem;
}
.glossary dt { font-weight: 500; }
.glossary dd { margin: 0; color: var(--soft); }
@media print { body { background: none; } main { padding: 0; } }
"""
