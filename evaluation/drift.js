// Draws the drift page's charts.
const ratios = (stream, place) => () => {
  const findings = stream.findings.toSorted((a, b) => a.ratio - b.ratio).slice(narrow() ? -12 : -33);
  const trace = {
    type: "bar", orientation: "h", y: findings.map((finding) => finding.name), x: findings.map((finding) => finding.ratio),
    marker: { color: findings.map((finding) => colour(finding.drifted ? "bad" : "learned")) },
    hovertemplate: "%{y}: %{x:.0%} of its limit<extra></extra>",
  };
  const limit = { type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: colour("ink"), width: 1.5, dash: "dot" } };
  document.getElementById(`ratio-${place}`).style.height = `${60 + 20 * findings.length}px`;
  return [[trace], layoutOf({ shapes: [limit], xaxis: { tickformat: ".0%", rangemode: "tozero", nticks: 6 }, yaxis: { type: "category", showgrid: false, ticklabelstandoff: 6, dtick: 1 } })];
};

const times = ["in training", "now"];
const shade = (time) => colour(time === "now" ? "learned" : "muted");

const spread = (stream, place) => () => {
  const finding = stream.findings.find(({ name }) => name === document.getElementById(`spread-column-${place}`).value);
  const traces = times.map((time) => {
    const values = time === "now" ? finding.quantiles : finding.training_quantiles;
    return { type: "scatter", mode: "lines", name: time, x: values, y: values.map((_, i) => i / (values.length - 1)), line: { color: shade(time), width: time === "now" ? 3 : 2 }, hovertemplate: `${time}: %{y:.0%} at or below %{x:.4g}<extra></extra>` };
  });
  legend(`spread-legend-${place}`, times, "span", (time) => `<svg width="26" height="8"><line x1="0" y1="4" x2="26" y2="4" stroke="${shade(time)}" stroke-width="3"/></svg>`);
  return [traces, layoutOf({ xaxis: { title: axisTitle(finding.name), nticks: 6 }, yaxis: { tickformat: ".0%", range: [-0.02, 1.02] } })];
};

const mix = () => {
  const shares = page.streams.find((stream) => Object.keys(stream.mix).length).mix;
  const tiers = Object.keys(shares);
  const traces = times.map((time, place) => ({ type: "bar", name: time, x: tiers, y: tiers.map((tier) => shares[tier][place]), marker: { color: shade(time) }, hovertemplate: `%{x} ${time}: %{y:.1%}<extra></extra>` }));
  legend("mix-legend", times, "span", (time) => `<svg width="14" height="14"><rect width="14" height="14" rx="3" fill="${shade(time)}"/></svg>`);
  return [traces, layoutOf({ barmode: "group", xaxis: { type: "category" }, yaxis: { tickformat: ".0%", rangemode: "tozero" } })];
};

const performance = () => {
  const { mean, below, band } = page.performance;
  const zone = { type: "bar", x: ["R per signal"], base: [band.low], y: [band.high - band.low], width: [0.5], marker: { color: colour("muted"), opacity: 0.35 }, hovertemplate: `band ${signed(band.low)} to ${signed(band.high)}<extra></extra>` };
  const points = [["before", band.mean, "ink"], ["now", mean, below ? "bad" : "learned"]].map(([name, value, tone]) => ({
    type: "scatter", mode: "markers+text", x: ["R per signal"], y: [value], text: [`${name} ${signed(value)}`], textposition: "middle right", marker: { size: 12, color: colour(tone) }, hovertemplate: `${name} %{y:.3f} R<extra></extra>`,
  }));
  return [[zone, ...points], layoutOf({ xaxis: { type: "category", showticklabels: false }, yaxis: { title: axisTitle("R per signal against 1x"), zeroline: true } })];
};

const charts = Object.fromEntries(page.streams.flatMap((stream, place) => [[`ratio-${place}`, ratios(stream, place)], [`spread-${place}`, spread(stream, place)]]));
const draw = show({ ...charts, ...(document.getElementById("mix") ? { mix } : {}), ...(page.performance ? { performance } : {}) });
page.streams.forEach((_, place) => document.getElementById(`spread-column-${place}`).addEventListener("change", draw));
