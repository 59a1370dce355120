// Draws what compares sizers on the same signals: differences, equity, sizes, and whether p can be believed.
const dashes = ["solid", "dot", "dash", "solid", "dashdot", "longdash"];

// Differences with their 95 % intervals, one below the other: {label, said, difference, strong}.
const intervals = (rows) => {
  const tones = { "beats": colour("good"), "loses to": colour("bad"), "is not distinguishable from": colour("muted") };
  const known = ({ difference }) => difference.low !== null;
  const trace = {
    type: "scatter", mode: "markers", x: rows.map((row) => row.difference.mean), y: rows.map((row) => row.label),
    marker: {
      color: rows.map((row) => tones[row.difference.relation]), size: rows.map((row) => (row.strong ? 13 : 9)),
      symbol: rows.map((row) => (row.difference.relation === "is not distinguishable from" ? "circle-open" : "circle")), line: { width: 2 },
    },
    text: rows.map(({ said, difference }) => `${said} ${difference.relation} ${difference.other}<br>${signed(difference.mean)} R` +
      (difference.low !== null ? `, 95 % ${signed(difference.low)} to ${signed(difference.high)}` : ", too few days for an interval")),
    hovertemplate: "%{text}<extra></extra>",
  };
  const whiskers = rows.filter(known).map((row) => ({
    type: "scatter", mode: "lines", x: [row.difference.low, row.difference.high], y: [row.label, row.label], hoverinfo: "skip",
    line: { color: tones[row.difference.relation], width: row.strong ? 4 : 2 },
  }));
  // Zero is always in sight: it is what an interval is read against.
  const ends = [0, ...rows.flatMap((row) => (known(row) ? [row.difference.low, row.difference.high] : [row.difference.mean]))];
  const least = Math.min(...ends), most = Math.max(...ends), room = 0.06 * (most - least || 1);
  const layout = layoutOf({
    xaxis: { title: axisTitle("R per signal"), zeroline: true, zerolinewidth: 1.5, nticks: narrow() ? 5 : 8, range: [least - room, most + room] },
    yaxis: { autorange: "reversed", type: "category", showgrid: false, ticklabelstandoff: 6, categoryorder: "array", categoryarray: rows.map((row) => row.label) },
  });
  return [[...whiskers, trace], layout];
};

// The charts of one comparison; `draw` draws all charts of the page again, `place` tells its elements from those of others.
const sizerCharts = (comparison, curves, sizesOf, { place = "", draw }) => {
  const names = comparison.rows.map((row) => row.figures.name);
  const baselines = names.filter((name) => ![comparison.learned, comparison.reference, comparison.plug_in].includes(name));
  const bold = (name) => (name === comparison.learned ? `<b>${name}</b>` : name);

  // The learned sizer stands out, the rule and the plug-in can be told at a glance, the other baselines stay behind.
  const lineOf = (name) => {
    if (name === comparison.learned) return { color: colour("learned"), width: 3, dash: "solid" };
    if (name === comparison.reference) return { color: colour("reference"), width: 2, dash: "solid" };
    if (name === comparison.plug_in) return { color: colour("plug-in"), width: 2, dash: "solid" };
    const place = baselines.indexOf(name);
    return { color: colour(`baseline-${1 + (place % 6)}`), width: 1.3, dash: dashes[place % 6] };
  };

  const forest = (key) => intervals(comparison.rows.filter((row) => row[key] !== null)
    .map((row) => ({ label: bold(row.figures.name), said: row.figures.name, difference: row[key], strong: row.figures.name === comparison.learned })));

  const equity = () => {
    const order = [...new Set([...baselines.toReversed(), comparison.reference, comparison.plug_in, comparison.learned])].filter((name) => name in curves);
    const shape = (name, values, axis) => ({
      type: "scatter", mode: "lines", name, x: curves[name].time_ms, y: values, yaxis: axis, xaxis: "x",
      line: { ...lineOf(name), shape: "hv" }, opacity: baselines.includes(name) ? 0.85 : 1, visible: !hidden.has(name),
    });
    const traces = order.flatMap((name) => [
      { ...shape(name, curves[name].equity, "y"), hovertemplate: `${name}: %{y:.3f}<br>%{x|%Y-%m-%d}<extra></extra>` },
      { ...shape(name, curves[name].drawdown.map((loss) => -loss), "y2"), hovertemplate: `${name}: %{y:.1%}<br>%{x|%Y-%m-%d}<extra></extra>` },
    ]);
    const layout = layoutOf({
      xaxis: { type: "date", anchor: "y2", showgrid: false, tickangle: 0, nticks: narrow() ? 4 : 10 },
      yaxis: { domain: [0.36, 1], title: axisTitle("equity"), zeroline: false },
    });
    layout.yaxis2 = { ...layout.yaxis, domain: [0, 0.3], title: axisTitle("drawdown"), tickformat: ".0%", zeroline: true };
    legend(`equity-legend${place}`, order.toReversed(), "button", (name) => {
      const { color, width, dash } = lineOf(name);
      const gaps = { solid: "none", dot: "2 3", dash: "6 4", dashdot: "6 3 2 3", longdash: "9 4" }[dash];
      return `<svg width="26" height="8"><line x1="0" y1="4" x2="26" y2="4" stroke="${color}" stroke-width="${width + 0.5}" stroke-dasharray="${gaps}"/></svg>`;
    }, { chosen: comparison.learned, toggle: () => draw() });
    return [traces, layout];
  };

  const sizes = () => {
    const tiers = Object.keys(sizesOf);
    const traces = tiers.map((tier, place) => ({
      type: "bar", orientation: "h", name: tier, y: names.map(bold), x: comparison.rows.map((row) => row.figures.tiers[tier]),
      marker: { color: colour(`tier-${place}`), line: { color: colour("card"), width: 1 } }, hovertemplate: `%{y}: ${tier} %{x:.1%}<extra></extra>`,
    }));
    const layout = layoutOf({
      barmode: "stack", bargap: 0.3, margin: { l: 8, r: 28, t: 12, b: 8 }, // or its label of 100 % has no room
      xaxis: { tickformat: ".0%", range: [0, 1.004], showgrid: false, zeroline: false, nticks: narrow() ? 3 : 6 }, yaxis: { autorange: "reversed", type: "category", showgrid: false, ticklabelstandoff: 6 },
    });
    legend(`sizes-legend${place}`, tiers, "span", (tier) => `<svg width="14" height="14"><rect width="14" height="14" rx="3" fill="${colour(`tier-${tiers.indexOf(tier)}`)}"/></svg>`, { text: (tier) => `${tier} ${sizesOf[tier]}×` });
    return [traces, layout];
  };

  return { lineOf, bold, names, forest, equity, sizes };
};

const reliabilityChart = ({ stated, happened, low, high, group }) => {
  const least = Math.max(0, Math.min(...stated, ...low) - 0.04), most = Math.min(1, Math.max(...stated, ...high) + 0.04);
  const diagonal = { type: "scatter", mode: "lines", x: [least, most], y: [least, most], hoverinfo: "skip", line: { color: colour("muted"), dash: "dot", width: 1.5 } };
  const groups = {
    type: "scatter", mode: "markers", x: stated, y: happened, marker: { color: colour("learned"), size: 10 },
    error_y: { type: "data", symmetric: false, array: high.map((top, i) => top - happened[i]), arrayminus: low.map((bottom, i) => happened[i] - bottom), color: colour("learned"), thickness: 1.5, width: 0 },
    text: group.map((count) => `${count} signals`), hovertemplate: "stated %{x:.1%}, happened %{y:.1%}<br>%{text}<extra></extra>",
  };
  const layout = layoutOf({
    xaxis: { title: axisTitle("stated probability of a win"), tickformat: ".0%", range: [least, most], zeroline: false },
    yaxis: { title: axisTitle("share that won"), tickformat: ".0%", range: [least, most], zeroline: false },
  });
  return [[diagonal, groups], layout];
};
