"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const GREY = "#AEB4BC", DARK_INK = "#1f252d"; // the latter on the light cells of a heat map
const ROUND = [-2, -1, 0, 1, 2, 3, 4].flatMap((p) => [1, 2, 5].map((k) => k * 10 ** p)); // for logarithmic axes
let BLUE, ORANGE, INK, LINE, PAPER; // the page's, light or dark
function readColours() {
  const style = getComputedStyle(document.documentElement);
  [BLUE, ORANGE, INK, LINE, PAPER] = ["blue", "orange", "ink", "line", "paper"].map((name) => style.getPropertyValue(`--${name}`).trim());
}
const narrow = () => window.innerWidth < 640;
const byId = (id) => document.getElementById(id);
const range = (n) => [...Array(n).keys()];
// Plotly reads a little HTML in its texts; a name is never markup.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const fixed = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
const wrap = (text, width) => String(text).split(" ").flatMap((word) => word.match(new RegExp(`.{1,${width}}`, "gu")) || [""]).reduce((lines, word) => {
  const last = lines.length - 1;
  if (last >= 0 && (lines[last] + " " + word).length <= width) lines[last] += " " + word;
  else lines.push(word);
  return lines;
}, []).map(plain).join("<br>");
// Beside an axis, and at a point; on a phone there is little room.
const tick = (text, width = 16) => (narrow() ? wrap(text, width) : plain(text));
const near = (text) => plain(narrow() && text.length > 18 ? `${text.slice(0, 17)}…` : text);
// Towards the middle of the plot.
const inwards = (xs) => xs.map((x) => (x - Math.min(...xs) <= (Math.max(...xs) - Math.min(...xs)) / 2 ? "top right" : "top left"));
const vfms = data.vfms.map(plain), settings = data.settings.map(plain);

function draw(id, traces, layout) {
  const axis = { gridcolor: LINE, zerolinecolor: "#9aa2ad", linecolor: "#c9ced6", automargin: true, fixedrange: narrow() };
  Plotly.react(byId(id), traces, {
    font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", size: 13, color: INK },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#a3abb5", activecolor: BLUE },
    margin: { l: 8, r: 12, t: narrow() ? 8 : 34, b: 40 }, dragmode: narrow() ? false : "zoom", showlegend: false, ...layout,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" },
    xaxis: { ...axis, ...layout.xaxis, title: { standoff: 10, text: wrap(layout.xaxis.title?.text || "", narrow() ? 30 : 100) } },
    yaxis: { ...axis, ...layout.yaxis, title: { standoff: 10, text: wrap(layout.yaxis.title?.text || "", narrow() ? 40 : 60) } },
  }, { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] }); // none that goes online
}

function drawTau() {
  const rows = data.taus.filter((t) => t.tau !== null);
  if (!rows.length) { byId("plot-tau").remove(); return; }
  const y = range(rows.length);
  const low = Math.min(0, ...rows.flatMap((t) => [t.tau, ...(t.interval || []), t.paper ?? 0]));
  draw("plot-tau", [
    { type: "bar", orientation: "h", x: rows.map((t) => t.tau), y, width: 0.28, hoverinfo: "skip", showlegend: false,
      marker: { color: BLUE, opacity: 0.25 } },
    { type: "scatter", mode: "markers", name: "here, 95 % interval over seeds", x: rows.map((t) => t.tau), y,
      marker: { color: BLUE, size: 12 },
      error_x: { type: "data", symmetric: false, color: BLUE, thickness: 2, width: 6,
        array: rows.map((t) => (t.interval ? t.interval[1] - t.tau : 0)),
        arrayminus: rows.map((t) => (t.interval ? t.tau - t.interval[0] : 0)) },
      text: rows.map((t) => `<b>${plain(t.label)}</b><br>τ = ${fixed(t.tau)}, ${t.n} models` +
        (t.interval ? `<br>95 %: ${fixed(t.interval[0])} to ${fixed(t.interval[1])}` : "<br>too few seeds for an interval")),
      hovertemplate: "%{text}<extra></extra>" },
    { type: "scatter", mode: "markers", name: "the paper's", x: rows.map((t) => t.paper), y,
      marker: { color: PAPER, size: 10, symbol: "diamond", line: { color: ORANGE, width: 2.2 } },
      text: rows.map((t) => plain(t.label)), hovertemplate: "%{text}<br>paper: τ = %{x}<extra></extra>",
      visible: rows.some((t) => t.paper !== null) },
  ], {
    height: 110 + (narrow() ? 46 : 38) * rows.length, showlegend: true,
    xaxis: { range: [low - 0.04, 1.04], title: { text: "Kendall's τ" }, tickformat: ".2~f" },
    yaxis: { range: [rows.length - 0.5, -0.5], tickvals: y, showgrid: false, zeroline: false,
      ticktext: rows.map((t) => tick(t.label)) },
  });
}

function drawMatrix() {
  const z = data.matrix.map((row, i) => row.map((tau, j) => (i === j ? null : tau)));
  const names = data.settings.map((s) => tick(s, 14));
  draw("plot-matrix", [{ type: "heatmap", x: range(names.length), y: range(names.length), z, zmin: -1, zmax: 1, xgap: 2, ygap: 2,
    colorscale: [[0, "#ee8a62"], [0.5, "#f7f7f7"], [1, "#5b9fd0"]],
    text: z.map((row) => row.map((tau) => (tau === null ? "" : fixed(tau)))), texttemplate: "%{text}",
    textfont: { size: narrow() ? 9 : 13, color: DARK_INK },
    customdata: z.map((row, i) => row.map((_, j) => `${settings[i]} and ${settings[j]}`)), hoverongaps: false,
    hovertemplate: "%{customdata}<br>τ = %{text}<extra></extra>", showscale: !narrow(), colorbar: { title: { text: "τ" }, thickness: 12, outlinewidth: 0 } }],
  { height: (narrow() ? 120 : 110) + (narrow() ? 34 : 46) * names.length,
    xaxis: { tickvals: range(names.length), ticktext: names, tickangle: narrow() ? -60 : -30, showgrid: false, zeroline: false, tickfont: { size: narrow() ? 10 : 13 } },
    yaxis: { tickvals: range(names.length), ticktext: names, autorange: "reversed", showgrid: false, zeroline: false, tickfont: { size: narrow() ? 10 : 13 } } });
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function shade(i, n) { // viridis without the end that the page's ground hides
  const stops = dark.matches ? [[98, 120, 190], [46, 155, 160], [94, 201, 98], [253, 231, 37]]
    : [[68, 1, 84], [59, 82, 139], [33, 145, 140], [80, 185, 100]];
  const at = n < 2 ? 0 : (i / (n - 1)) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
  return `rgb(${stops[k].map((c, j) => Math.round(c + (stops[k + 1][j] - c) * (at - k))).join(",")})`;
}

function drawRanks() {
  const x = range(settings.length), last = settings.length - 1;
  draw("plot-ranks", vfms.map((name, m) => ({
    type: "scatter", mode: "lines+markers", x, y: x.map((s) => data.rank[s][m]), connectgaps: false,
    line: { color: shade(m, vfms.length), width: 2.5 }, marker: { size: 9 },
    text: x.map((s) => `<b>${name}</b>, ${settings[s]}<br>rank ${data.rank[s][m]}, ${data.mean[s][m] === null ? "" : fixed(data.mean[s][m])} %`),
    hovertemplate: "%{text}<extra></extra>",
  })), {
    height: (narrow() ? 150 : 90) + 30 * vfms.length,
    margin: { l: 8, r: narrow() ? 12 : 90, t: narrow() ? 8 : 34, b: 40 },
    xaxis: { tickvals: x, ticktext: data.settings.map((s) => wrap(s, narrow() ? 14 : Math.max(12, Math.floor(140 / settings.length)))), showgrid: false, zeroline: false,
      range: [-0.2, last + 0.2], tickangle: narrow() ? -60 : 0, tickfont: { size: narrow() ? 10 : 13 } },
    yaxis: { autorange: "reversed", showgrid: false, zeroline: false, showline: false,
      tickvals: range(vfms.length).map((m) => data.rank[data.baseline][m]),
      ticktext: data.vfms.map((name, m) => (data.rank[data.baseline][m] === null ? "" : tick(name))) },
    annotations: narrow() ? [] : range(vfms.length).filter((m) => data.rank[last][m] !== null).map((m) => ({
      x: last, y: data.rank[last][m], text: vfms[m], xanchor: "left", xshift: 10, showarrow: false, font: { color: shade(m, vfms.length) } })),
  });
}

function drawModels(s) {
  const rows = range(vfms.length).filter((m) => data.mean[s][m] !== null).sort((a, b) => data.mean[s][b] - data.mean[s][a]);
  const y = range(rows.length), std = rows.map((m) => data.std[s][m]);
  const traces = [{
    type: "bar", orientation: "h", y, x: rows.map((m) => data.mean[s][m]), name: settings[s], marker: { color: BLUE, opacity: 0.85 },
    error_x: { type: "data", array: std, color: INK, thickness: 1.4, width: 4 },
    text: rows.map((m, i) => `<b>${vfms[m]}</b><br>${fixed(data.mean[s][m])}` + (std[i] === null ? " %, one seed" : ` ± ${fixed(std[i])} %`)),
    textposition: "none", hovertemplate: "%{text}<extra></extra>",
  }];
  if (s !== data.baseline) traces.push({
    type: "scatter", mode: "markers", y, x: rows.map((m) => data.mean[data.baseline][m]), name: settings[data.baseline],
    marker: { color: ORANGE, size: 11, line: { color: PAPER, width: 1.5 } },
    text: rows.map((m) => vfms[m]), hovertemplate: `%{text}<br>${settings[data.baseline]}: %{x:.2f} %<extra></extra>`,
  });
  draw("plot-models", traces, { height: 120 + 30 * rows.length, showlegend: true, bargap: 0.3,
    xaxis: { rangemode: "tozero", title: { text: "mIoU in percent" } },
    yaxis: { range: [rows.length - 0.5, -0.5], tickvals: y, ticktext: rows.map((m) => tick(data.vfms[m])), showgrid: false, zeroline: false } });
  document.querySelectorAll(".of-setting").forEach((part, i) => { part.hidden = i !== s; });
  drawCurves(s);
  drawClasses(s, rows);
}

function drawCurves(s) {
  const curves = data.curves[s];
  byId("curve-part").hidden = !curves.length;
  if (!curves.length) return;
  const named = new Set();
  draw("plot-curves", curves.map((c) => {
    const again = named.has(c.vfm);
    named.add(c.vfm);
    return { type: "scatter", mode: "lines+markers", x: c.steps, y: c.miou, name: vfms[c.vfm], legendgroup: c.vfm, showlegend: !again,
      line: { color: shade(c.vfm, vfms.length), width: 1.6 }, marker: { size: 4 },
      text: c.steps.map((step, i) => `<b>${vfms[c.vfm]}</b>${c.seed === null ? "" : `, seed ${c.seed}`}<br>step ${step}: ${fixed(c.miou[i])} %`),
      hovertemplate: "%{text}<extra></extra>" };
  }), { height: narrow() ? 420 : 460, showlegend: true,
    xaxis: { title: { text: "optimiser steps" }, rangemode: "tozero" }, yaxis: { title: { text: "mIoU in percent" } } });
}

function drawClasses(s, rows) {
  const classes = data.classes[s];
  byId("class-part").hidden = !classes;
  if (!classes) return;
  const names = classes.names.map(plain), flip = narrow() || names.length < 30;
  const z = flip ? names.map((_, c) => rows.map((m) => classes.iou[m][c])) : rows.map((m) => classes.iou[m]);
  const short = rows.map((m) => tick(data.vfms[m])), x = flip ? short : names, y = flip ? names : short;
  const few = x.length <= (narrow() ? 5 : 14);
  draw("plot-classes", [{ type: "heatmap", z, texttemplate: few ? "%{z:.1f}" : "", textfont: { size: narrow() ? 9 : 11 }, x: range(x.length), y: range(y.length), zmin: 0, zmax: 100, colorscale: "Viridis", hoverongaps: false,
    customdata: z.map((row, i) => row.map((_, j) => `${y[i]}, ${x[j]}`)),
    hovertemplate: "%{customdata}<br>IoU %{z:.1f} %<extra></extra>", colorbar: { title: { text: "IoU" }, thickness: 12, outlinewidth: 0 } }],
  { height: Math.max(280, 130 + (flip ? 18 : 26) * y.length),
    xaxis: { tickvals: range(x.length), ticktext: x, tickangle: -60, showgrid: false, zeroline: false, tickfont: { size: 11 },
      showticklabels: x.length <= 60, title: { text: x.length > 60 ? "classes (point at one for its name)" : "" }, fixedrange: false },
    yaxis: { tickvals: range(y.length), ticktext: y, autorange: "reversed", showgrid: false, zeroline: false, tickfont: { size: flip ? 10 : 12 } } });
}

function drawPairs(i, j) {
  const both = range(vfms.length).filter((m) => data.mean[i][m] !== null && data.mean[j][m] !== null);
  const lines = { x: [], y: [] };
  let flipped = 0, pairs = 0;
  both.forEach((a, k) => both.slice(k + 1).forEach((b) => {
    pairs += 1;
    if ((data.mean[i][a] - data.mean[i][b]) * (data.mean[j][a] - data.mean[j][b]) >= 0) return;
    flipped += 1;
    lines.x.push(data.mean[i][a], data.mean[i][b], null);
    lines.y.push(data.mean[j][a], data.mean[j][b], null);
  }));
  const bars = (s) => ({ type: "data", array: both.map((m) => data.std[s][m]), color: GREY, thickness: 1.2, width: 3 });
  draw("plot-pairs", [
    { type: "scatter", mode: "lines", ...lines, line: { color: ORANGE, width: 1.6 }, opacity: 0.65, hoverinfo: "skip" },
    { type: "scatter", mode: "markers+text", x: both.map((m) => data.mean[i][m]), y: both.map((m) => data.mean[j][m]),
      error_x: bars(i), error_y: bars(j), marker: { color: BLUE, size: 11 }, text: both.map((m) => near(data.vfms[m])),
      customdata: both.map((m) => vfms[m]), textposition: inwards(both.map((m) => data.mean[i][m])), textfont: { size: narrow() ? 10 : 12 },
      hovertemplate: `<b>%{customdata}</b><br>${settings[i]}: %{x:.2f} %<br>${settings[j]}: %{y:.2f} %<extra></extra>` },
  ], { height: narrow() ? 420 : 520, margin: { l: 8, r: 20, t: 34, b: 40 },
    xaxis: { title: { text: `${data.settings[i]}, mIoU in percent` } }, yaxis: { title: { text: `${data.settings[j]}, mIoU in percent` } } });
  byId("pairs-note").textContent = i === j ? "Choose two settings." :
    `${flipped} of ${pairs} pairs change their order (orange lines)` +
    (data.matrix[i][j] === null ? "." : `; τ = ${fixed(data.matrix[i][j])}.`);
}

function drawPredict(t) {
  const rows = data.predict[t].filter((r) => r.cost !== null && r.tau !== null), front = rows.filter((r) => r.front);
  const label = (r) => `${r.settings.map((s) => settings[s]).join(" + ")}<br>${fixed(r.cost)}× the time, τ = ${fixed(r.tau)}`;
  byId("plot-predict").hidden = !rows.length;
  if (rows.length) draw("plot-predict", [
    { type: "scatter", mode: "markers", name: "any set of settings", x: rows.map((r) => r.cost), y: rows.map((r) => r.tau),
      marker: { color: GREY, size: 8 }, text: rows.map(label), hovertemplate: "%{text}<extra></extra>" },
    { type: "scatter", mode: "lines+markers", name: "best for its time", x: front.map((r) => r.cost), y: front.map((r) => r.tau),
      line: { shape: "hv", color: BLUE, width: 2 }, marker: { size: 13 }, text: front.map(label), hovertemplate: "%{text}<extra></extra>" },
  ], { height: 420, showlegend: true,
    xaxis: { type: "log", tickvals: ROUND, title: { text: `training time relative to ${data.settings[data.baseline]}` } },
    yaxis: { title: { text: `Kendall's τ to ${data.settings[t]}` } } });
  document.querySelectorAll(".of-target").forEach((part, i) => { part.hidden = i !== t; });
}

function drawInteraction(k) {
  const pair = data.interactions[k], ends = [Math.min(...pair.predicted, ...pair.measured), Math.max(...pair.predicted, ...pair.measured)];
  draw("plot-interaction", [
    { type: "scatter", mode: "lines", x: ends, y: ends, line: { color: GREY, width: 1.5 }, hoverinfo: "skip" },
    { type: "scatter", mode: "markers+text", x: pair.predicted, y: pair.measured, marker: { color: BLUE, size: 11 },
      text: pair.vfm.map((m) => near(data.vfms[m])), textposition: inwards(pair.predicted), textfont: { size: narrow() ? 10 : 12 },
      customdata: pair.predicted.map((x, i) => [vfms[pair.vfm[i]], fixed(pair.measured[i] - x)]),
      hovertemplate: "<b>%{customdata[0]}</b><br>predicted %{x:.2f} %, measured %{y:.2f} %<br>error %{customdata[1]}<extra></extra>" },
  ], { height: narrow() ? 400 : 460, margin: { l: 8, r: 20, t: 34, b: 40 },
    xaxis: { title: { text: "predicted by adding up both changes, mIoU in percent" } }, yaxis: { title: { text: "measured, mIoU in percent" } } });
}

// A colour for each model and a mark for each setting and device or way of measuring, which are not compared.
function drawScatter(id, series, words, log) {
  const marks = ["circle", "square", "diamond", "cross", "triangle-up", "star", "x", "pentagon", "hexagram", "triangle-down"];
  const xs = series.flatMap((s) => s.x), named = xs.length <= (narrow() ? 4 : 10);
  const middle = (Math.min(...xs) + Math.max(...xs)) / 2, shown = range(vfms.length).filter((m) => series.some((s) => s.vfm.includes(m)));
  const entry = (name, marker) => ({ type: "scatter", mode: "markers", name: wrap(name, narrow() ? 34 : 60), x: [null], y: [null], marker: { size: 11, ...marker } });
  draw(id, [
    ...series.map((s, k) => (
      { type: "scatter", mode: named ? "markers+text" : "markers", showlegend: false, x: s.x, y: s.miou,
        error_y: { type: "data", array: s.std, color: GREY, thickness: 1.2, width: 3 },
        marker: { size: 11, symbol: marks[k % marks.length], color: s.vfm.map((m) => shade(m, vfms.length)) },
        text: s.vfm.map((m) => near(data.vfms[m])), textposition: s.x.map((x) => (x < middle ? "top right" : "top left")), textfont: { size: narrow() ? 10 : 12 },
        customdata: s.vfm.map((m, i) => `<b>${vfms[m]}</b>, ${plain(s.label)}<br>${fixed(s.miou[i])}${s.std[i] === null ? "" : ` ± ${fixed(s.std[i])}`} %`),
        hovertemplate: `%{customdata}<br>${words}: %{x:.4~g}<extra></extra>` })),
    ...(named ? [] : shown.map((m) => entry(data.vfms[m], { color: shade(m, vfms.length) }))),
    ...series.map((s, k) => entry(s.label, { color: GREY, symbol: marks[k % marks.length] })),
  ], { height: (narrow() ? 400 + 24 * (series.length + shown.length) : 460 + 8 * (series.length + shown.length)), showlegend: true,
    xaxis: { title: { text: words }, ...(log ? { type: "log", tickvals: ROUND } : { rangemode: "tozero" }) },
    yaxis: { title: { text: "mIoU in percent" } } });
}

function drawTimes() {
  const longest = Math.max(...data.times.flatMap((s) => s.x));
  const [unit, words] = longest > 7200 ? [3600, "hours"] : longest > 300 ? [60, "minutes"] : [1, "seconds"];
  drawScatter("plot-time", data.times.map((s) => ({ ...s, x: s.x.map((x) => x / unit) })), `training time in ${words}`, true);
}

function choices(id, chosen, changed, names = data.settings) {
  const select = byId(id);
  names.forEach((name, i) => select.add(new Option(name, i, i === chosen, i === chosen)));
  select.addEventListener("change", changed);
  return () => Number(select.value);
}

// Tables: sort by a click on a heading, gaps last; filter by words.
document.querySelectorAll(".grid").forEach((grid) => {
  const body = grid.querySelector("tbody"), heads = [...grid.querySelectorAll("th")];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const number = head.classList.contains("num"), now = head.getAttribute("aria-sort");
    const down = now ? now === "ascending" : number;
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return (down ? -1 : 1) * (number ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }));
  const input = grid.querySelector("input");
  input?.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    grid.querySelector("output").textContent = words.length ? `${shown} of ${body.rows.length}` : "";
  });
});

// A number leads to the runs behind it.
const runs = [...document.querySelectorAll("#runs tbody tr")], runsNote = byId("runs-note");
function showRuns(group) {
  runs.forEach((row) => { row.hidden = !row.dataset.member.startsWith(group); });
  const shown = runs.filter((row) => !row.hidden);
  runsNote.hidden = group === "";
  runsNote.querySelector("span").textContent = `Showing the ${shown.length} of ${runs.length} runs behind that number.`;
}
runsNote.querySelector("button").addEventListener("click", () => showRuns(""));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.origin");
  if (!link) return;
  event.preventDefault();
  showRuns(link.dataset.group);
  byId("runs").scrollIntoView();
});

const first = data.settings.length > 1 ? range(data.settings.length).find((s) => s !== data.baseline) : 0;
const several = data.settings.length > 1, many = data.settings.length > 2;
const setting = choices("pick-setting", data.baseline, () => drawModels(setting()));
const x = several && choices("pick-x", data.baseline, () => drawPairs(x(), y()));
const y = several && choices("pick-y", first, () => drawPairs(x(), y()));
const target = many && choices("pick-target", data.target, () => drawPredict(target()));
const interaction = data.interactions.length > 0 &&
  choices("pick-interaction", 0, () => drawInteraction(interaction()), data.interactions.map((pair) => pair.label));
const blocks = [...document.querySelectorAll(".of-examples")];
const showExamples = (chosen) => blocks.forEach((block, i) => { block.hidden = i !== chosen; });
if (blocks.length > 1) {
  const heads = blocks.map((block) => block.querySelector("h3")), names = heads.map((head) => head.textContent);
  heads.forEach((head) => head.remove());
  const chosen = choices("pick-examples", 0, () => showExamples(chosen()), names);
  showExamples(0);
}
function drawAll() {
  if (interaction) drawInteraction(interaction());
  if (byId("plot-speed")) drawScatter("plot-speed", data.speeds, "images per second", false);
  if (byId("plot-time")) drawTimes();
  if (several) { if (byId("plot-tau")) drawTau(); drawRanks(); drawPairs(x(), y()); }
  if (many) { drawMatrix(); drawPredict(target()); }
  drawModels(setting());
}
dark.addEventListener("change", () => { readColours(); drawAll(); });
let wasNarrow = narrow();
window.addEventListener("resize", () => { if (narrow() !== wasNarrow) { wasNarrow = narrow(); drawAll(); } });
readColours();
drawAll();
document.documentElement.dataset.ready = "yes";
