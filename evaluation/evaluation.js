// Draws the evaluation page's charts.
const charts = {};

charts.folds = () => {
  const labels = page.folds.map((fold) => `fold ${fold.number}`);
  const seeds = page.folds[0].gained.length;
  const dots = Array.from({ length: seeds }, (_, place) => ({
    type: "scatter", mode: "markers", name: `seed ${page.seeds[place].seed}`, x: labels, y: page.folds.map((fold) => fold.gained[place]),
    marker: { size: 10, color: colour("learned"), opacity: 0.75, line: { width: 1, color: colour("card") } },
    hovertemplate: `seed ${page.seeds[place].seed}, %{x}: %{y:+.3f} R<extra></extra>`,
  }));
  const medians = {
    type: "bar", x: labels, y: page.folds.map((fold) => fold.median), width: 0.5,
    marker: { color: page.folds.map((fold) => colour(fold.median < 0 ? "bad" : "good")), opacity: 0.28 }, hovertemplate: "%{x}: median %{y:+.3f} R<extra></extra>",
  };
  return [[medians, ...dots], layoutOf({ xaxis: { type: "category" }, yaxis: { title: axisTitle("R per signal"), zeroline: true, zerolinewidth: 1.5 } })];
};

page.parts.forEach((part, number) => {
  const place = `-${number}`;
  const { comparison } = part;
  const { forest, equity, sizes, lineOf } = sizerCharts(comparison, part.curves, page.sizes, { place, draw: () => draw() });
  const main = [...new Set([comparison.reference, comparison.plug_in, "champion", part.subject])].filter((name) => name in part.curves);

  charts[`versus-reference${place}`] = () => forest("versus_reference");
  charts[`versus-plug-in${place}`] = () => forest("versus_plug_in");
  charts[`equity${place}`] = equity;
  charts[`sizes${place}`] = sizes;
  charts[`reliability${place}`] = () => reliabilityChart(part.reliability);

  charts[`skill${place}`] = () => {
    const { sized_r: sized, flat_r: flat, flat_size: size } = part.attribution;
    const trace = {
      type: "bar", orientation: "h", y: ["its sizes", `flat ${size.toFixed(2)}×`], x: [sized, flat], width: 0.55,
      marker: { color: [colour("learned"), colour("muted")] }, hovertemplate: "%{y}: %{x:+.1f} R<extra></extra>",
    };
    return [[trace], layoutOf({ xaxis: { title: axisTitle("total net R"), zeroline: true, nticks: 6 }, yaxis: { autorange: "reversed", type: "category", showgrid: false, ticklabelstandoff: 6 } })];
  };

  charts[`costs${place}`] = () => {
    const stressed = part.stress.filter((one) => main.includes(one.name));
    const traces = stressed.map((one) => ({
      type: "scatter", mode: "lines+markers", name: one.name, x: page.cost_factors, y: one.net_r, line: lineOf(one.name), marker: { size: 7, color: lineOf(one.name).color },
      hovertemplate: `${one.name}: %{y:+.1f} R at %{x}× the costs<extra></extra>`,
    }));
    legend(`costs-legend${place}`, stressed.map((one) => one.name), "span", (name) => `<svg width="26" height="8"><line x1="0" y1="4" x2="26" y2="4" stroke="${lineOf(name).color}" stroke-width="3"/></svg>`, { chosen: part.subject });
    return [traces, layoutOf({ xaxis: { title: axisTitle("times the costs assumed"), tickvals: page.cost_factors, zeroline: false }, yaxis: { title: axisTitle("total net R"), zeroline: true, zerolinewidth: 1.5 } })];
  };

  charts[`late${place}`] = () => {
    const names = main.filter((name) => name in part.late);
    const tones = { "as planned": "learned", "one bar later": "plug-in" };
    const traces = Object.entries(tones).map(([name, tone], at) => ({
      type: "bar", name, x: names, y: names.map((one) => part.late[one][at]), marker: { color: colour(tone) }, hovertemplate: `%{x}, ${name}: %{y:+.3f} R<extra></extra>`,
    }));
    legend(`late-legend${place}`, Object.keys(tones), "span", (name) => `<svg width="14" height="14"><rect width="14" height="14" rx="3" fill="${colour(tones[name])}"/></svg>`);
    return [traces, layoutOf({ barmode: "group", bargap: 0.35, xaxis: { type: "category", tickangle: 0 }, yaxis: { title: axisTitle("R per signal"), zeroline: true, zerolinewidth: 1.5 } })];
  };

  for (const kind of ["regimes", "years"]) {
    charts[`${kind}${place}`] = () => intervals(part[kind].filter((group) => group.versus !== null)
      .map((group) => ({ label: group.name, said: `${part.subject} in ${group.name}`, difference: group.versus, strong: false })));
  }
});

const draw = show(charts);
