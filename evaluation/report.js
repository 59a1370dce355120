// Draws the sizing report's charts.
const { forest, equity, sizes } = sizerCharts(page.comparison, page.curves, page.sizes, { draw: () => draw() });

const learning = () => {
  const trace = { type: "scatter", mode: "lines+markers", x: page.learning.steps, y: page.learning.score, line: { color: colour("learned"), width: 2.5 }, marker: { size: 5 }, hovertemplate: "%{x:,} steps: %{y:.3f}<extra></extra>" };
  return [[trace], layoutOf({ xaxis: { title: axisTitle("environment steps"), rangemode: "tozero", nticks: 6 }, yaxis: { title: axisTitle(page.learning.score_name), zeroline: true } })];
};

// One market's three probabilities, walk-forward: what was stated against what happened.
const classes = { down: "bad", flat: "muted", up: "good" };
const predictor = (report) => {
  const groups = Object.entries(report.reliability);
  const ends = groups.flatMap(([, { stated, happened }]) => [...stated, ...happened]);
  const least = Math.max(0, Math.min(...ends) - 0.04), most = Math.min(1, Math.max(...ends) + 0.04);
  const diagonal = { type: "scatter", mode: "lines", x: [least, most], y: [least, most], hoverinfo: "skip", line: { color: colour("muted"), dash: "dot", width: 1.5 } };
  const points = groups.map(([name, { stated, happened, group }]) => ({
    type: "scatter", mode: "markers", name, x: stated, y: happened, marker: { color: colour(classes[name]), size: 8 },
    text: group.map((count) => `${count} bars`), hovertemplate: `${name}: stated %{x:.1%}, happened %{y:.1%}<br>%{text}<extra></extra>`,
  }));
  legend("predictors-legend", Object.keys(classes), "span", (name) => `<svg width="14" height="14"><circle cx="7" cy="7" r="5" fill="${colour(classes[name])}"/></svg>`);
  const axis = { tickformat: ".0%", range: [least, most], zeroline: false };
  return [[diagonal, ...points], layoutOf({ xaxis: { ...axis, title: axisTitle("stated") }, yaxis: { ...axis, title: axisTitle("happened") } })];
};

const charts = {
  "versus-reference": () => forest("versus_reference"), "versus-plug-in": () => forest("versus_plug_in"), equity, sizes, reliability: () => reliabilityChart(page.reliability), learning,
};
Object.values(page.predictors ?? {}).forEach((report, place) => { charts[`predictor-${place}`] = () => predictor(report); });
const draw = show(charts);
