// Puts the page together: tables first, then the charts' library and the charts.
"use strict";

(function (page) {
  const data = page.json("data");
  page.load(data);
  page.nameSystems(data.scores.map((each) => each.name));
  page.loadAudio();
  const parts = page.parts(data);
  page.choose({
    system: data.reference, part: parts.find((part) => part in data.scores.at(-1).parts) || parts[0], filter: page.noFilter(),
    order: { by: "row", down: false }, tablePage: 0, playing: null, cursor: null, theme: null, map: 0, colour: "label",
  });
  page.head(data);
  page.scoresSection(data);
  page.matrixSection(data);
  page.tableSection(data);
  page.mapSection(data);
  page.groupSection(data);
  page.reliabilitySection(data);
  page.attributeSection(data);
  page.agreementSection(data);
  page.weightsSection(data);
  page.probeSection(data);
  page.curveSection(data);
  page.madeSection(data);
  page.stepsSection(data);
  page.scoreChart(data);
  document.documentElement.dataset.ready = "tables";
  performance.mark("medusa-tables");
  requestAnimationFrame(() => setTimeout(async () => {
    await page.loadPlotly();
    document.documentElement.dataset.ready = "charts";
    performance.mark("medusa-charts");
  }));
})(Medusa);
