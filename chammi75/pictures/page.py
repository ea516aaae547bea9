"""A whole HTML page in one file: it asks for nothing over the network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence

from chammi75.pictures.html import escape, joined

# Nothing but inline style and embedded pictures, even if markup from outside ever slipped in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16191f;--soft:#566072;--faint:#dfe3ea;--accent:#1f5fd6;
--dark:#0d0f14;--shadow:0 1px 2px rgb(16 24 40/.06),0 4px 16px rgb(16 24 40/.06)}
@media(prefers-color-scheme:dark){:root{--paper:#0f1218;--card:#181c24;--ink:#e8ebf1;--soft:#9aa4b6;--faint:#2a303c;
--accent:#83acff;--shadow:0 0 0 1px rgb(255 255 255/.05)}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
.wrap{max-width:1240px;margin:0 auto;padding:0 24px}
a{color:var(--accent)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--accent);
outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:12px;background:var(--card);padding:8px 14px;z-index:9}
h1{font-size:clamp(1.7rem,4vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 .35em;font-weight:680}
h2{font-size:1.35rem;line-height:1.25;letter-spacing:-.01em;margin:0;font-weight:650}
h3{font-size:1rem;line-height:1.3;margin:0;font-weight:620}
p{margin:.4em 0}
figure{margin:0}img{display:block;max-width:100%;height:auto}
figcaption{color:var(--soft);font-size:.875rem;margin-top:6px}
.unknown{color:var(--soft);font-style:italic}
dl{margin:0}dd{margin:0}
.table{overflow-x:auto;background:var(--card);border-radius:12px;box-shadow:var(--shadow);margin:14px 0}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;padding:14px 16px 4px;font-weight:620}
th,td{padding:9px 16px;text-align:left;vertical-align:top;border-bottom:1px solid var(--faint);overflow-wrap:normal}
tbody tr:last-child td{border-bottom:0}
th{font-size:.78rem;font-weight:600;color:var(--soft);white-space:nowrap}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.facts{display:grid;gap:3px 0;font-size:.875rem}
.facts>div{display:grid;grid-template-columns:7.2em 1fr;gap:10px}
.facts dt{color:var(--soft)}
footer{color:var(--soft);font-size:.875rem;border-top:1px solid var(--faint);margin-top:56px;padding:20px 0 40px}
@media(max-width:600px){.wrap{padding:0 14px}}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
"""

_PRINT = "@media print{body{background:#fff}.card,.table{box-shadow:none;border:1px solid #ccc;break-inside:avoid}}"


def page(title: str, parts: Sequence[object], *, style: str = "", language: str = "en") -> str:
    """A self-contained page.

    Parameters
    ----------
    title : str
        What the browser shows in its tab; escaped.
    parts : sequence
        What stands in the body, one after the other: `Html` as it is, anything else escaped.
    style : str
        More CSS, after the page's own; it must be the caller's, never from data.
    language : str
        The language of the words, as in ``"en"``.

    Returns
    -------
    str
        A complete HTML 5 document, to be written as UTF-8.

    Examples
    --------
    >>> "<title>A &amp; B</title>" in page("A & B", ["text <b>"])
    True
    """
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title>"
        f"<style>{_STYLE}{style}{_PRINT}</style>"
    )
    body = joined(parts, "\n")
    return f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'
