"""The report's HTML, a Jinja template; what it shows is gathered by `report`."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RichSem workbook: report of the {{ profile }} profile</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 70rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1, h2 { line-height: 1.2; }
section { border-top: 1px solid #ccc; margin-top: 2.5rem; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; }
caption, figcaption { text-align: left; color: #444; padding: 0.4rem 0; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
.status { border: 1px solid #555; border-radius: 0.3rem; padding: 0.05rem 0.4rem;
  font-size: 0.875rem; white-space: nowrap; }
.missing { border-style: dashed; color: #8a1c1c; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem;
  font-size: 0.875rem; }
dt { color: #444; } dd { margin: 0; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { color: #e8e8e8; background: #161616; } a { color: #8ab4f8; }
  caption, figcaption, dt { color: #bbb; } img { background: #fff; }
  .missing { color: #ff9d9d; } th, td, section { border-color: #444; }
}
</style>
</head>
<body>
<header>
<h1>RichSem workbook: report of the {{ profile }} profile</h1>
<p>{{ num_run }} of {{ entries|length }} figures and tables have been run. Every number, caption
and hash on this page was read from the files that the notebooks wrote; published numbers stand
beside ours, labelled, and never in their place.
{% if profile == "smoke" %}
<strong>The smoke profile only checks that everything runs: its numbers mean nothing.</strong>
{% elif profile == "demo" %}
The demo profile is a small detector on drawn images: compare the direction of differences, not
numbers.
{% endif %}
</p>
</header>
<main>
{% if num_claims %}
<h2 id="claims">What was claimed, and what came out</h2>
<p>Claims are stated at the top of their notebook, each with the difference that could refute it. A
claim <em>holds</em> if the whole 95 % interval of the difference, paired by seed, lies above
its margin, is <em>refuted</em> if it lies below, and is <em>open</em> otherwise. Intervals are not
corrected for the number of claims: of forty differences that are nothing, one would hold by chance,
so a bound that only just clears the margin is weak evidence.</p>
<div class="scroll">
<table>
<thead><tr>
{% for key in keys %}
<th scope="col">{{ key }}</th>
{% endfor %}
<th scope="col">result</th></tr></thead>
<tbody>
{% for entry in entries %}
{% for found in entry.findings %}
<tr><th scope="row">{{ found.claim }}</th>
{% for key in keys[1:] %}
<td{% if key != "verdict" %} class="number"{% endif %}>{{ found[key] }}</td>
{% endfor %}
<td><a href="#{{ entry.id }}">{{ entry.title }}</a></td></tr>
{% endfor %}
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
<h2 id="overview">Overview</h2>
<div class="scroll">
<table>
<thead><tr><th scope="col">result</th>
{% for name in columns %}
<th scope="col">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for entry, line in lines %}
<tr><th scope="row"><a href="#{{ entry.id }}">{{ entry.title }}</a></th>
{% for name in columns %}
{% if name == "status" %}
<td><span class="status{{ " missing" if entry.provenance is none }}">{{ entry.status }}</span></td>
{% elif name == "notebook" and entry.link %}
<td><a href="{{ entry.link }}">{{ entry.notebook }}</a></td>
{% else %}
<td>{{ line[name] }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for entry in entries %}
<section id="{{ entry.id }}" aria-labelledby="{{ entry.id }}-title">
<h2 id="{{ entry.id }}-title">{{ entry.title }}</h2>
<p><span class="status{{ " missing" if entry.provenance is none }}">{{ entry.status }}</span>
{% if entry.link %}
in <a href="{{ entry.link }}">{{ entry.notebook }}</a>
{% elif entry.notebook %}
in {{ entry.notebook }}
{% endif %}
{% if entry.provenance is not none %}
(<a href="{{ entry.id }}.csv">numbers</a>, <a href="{{ entry.id }}.json">provenance</a>)
{% endif %}
</p>
{% if entry.picture %}
<figure>
<img src="{{ entry.picture }}" alt="{{ entry.alt }}">
<figcaption>{{ entry.caption }}</figcaption>
</figure>
{% endif %}
{% if entry.cells %}
<div class="scroll">
<table>
<caption>{{ entry.caption or "The paper's numbers, for reference; ours were not run." }}</caption>
<thead><tr>
{% for name in entry.cells %}
<th scope="col">{{ name or "row" }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in zip(*entry.cells.values()) %}
<tr>
{% for cell in row %}
{% if loop.first %}
<th scope="row">{{ cell }}</th>
{% else %}
<td{% if cell|is_number %} class="number"{% endif %}>{{ cell }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if entry.provenance is not none %}
<dl>
{% for name, value in (entry.provenance|facts).items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
{% set ids = entry.provenance.inputs.runs %}
{% if ids %}
<dt>runs</dt><dd><details><summary>{{ ids|length }}, each shown by
<code>python -m richsem runs show NAME</code></summary>{{ ids|join(", ") }}</details></dd>
{% endif %}
</dl>
{% endif %}
</section>
{% endfor %}
</main>
<footer>
<section aria-labelledby="made-from">
<h2 id="made-from">What this page was made from</h2>
<dl>
{% for name, value in (made_from|facts).items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
</section>
</footer>
</body>
</html>
"""
