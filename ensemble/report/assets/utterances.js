// The utterances by column, what follows from them, and which of them are shown.
"use strict";

(function (page) {
  const STEPS = 10000;  // of a probability, as the page's `pack_probabilities` writes it

  page.load = function (data) {
    const packed = data.utterances;
    const n = packed.n, classes = packed.classes;
    const utterances = {
      n, classes, ids: packed.ids, texts: packed.texts, ranges: packed.ranges,
      labels: page.unpack(packed.labels), votes: page.unpack(packed.votes), durations: page.unpack(packed.durations),
      groups: {}, attributes: {}, systems: {},
    };
    for (const [name, own] of Object.entries(packed.groups)) {
      utterances.groups[name] = { values: own.values, codes: page.unpack(own.codes) };
    }
    for (const [name, own] of Object.entries(packed.attributes)) utterances.attributes[name] = page.unpack(own);
    for (const own of packed.systems) {
      const attributes = {};
      for (const [name, values] of Object.entries(own.attributes)) attributes[name] = page.unpack(values);
      utterances.systems[own.name] = {
        name: own.name, predicted: page.unpack(own.predicted), probabilities: page.unpack(own.probabilities), attributes,
      };
    }
    utterances.voteEntropy = entropies(utterances);
    page.utterances = utterances;
  };

  function entropies({ n, classes, votes }) {
    const found = new Float32Array(n).fill(NaN);
    if (!votes) return found;
    for (let i = 0; i < n; i++) {
      let total = 0, entropy = 0;
      for (let c = 0; c < classes.length; c++) total += votes[i * classes.length + c];
      if (!total) continue;
      for (let c = 0; c < classes.length; c++) {
        const share = votes[i * classes.length + c] / total;
        if (share > 0) entropy -= share * Math.log(share);
      }
      found[i] = entropy;
    }
    return found;
  }

  page.probability = function (system, i, c) {
    const own = page.utterances.systems[system];
    return own.probabilities && own.predicted[i] >= 0 ? own.probabilities[i * page.utterances.classes.length + c] / STEPS : NaN;
  };

  page.className = (c) => (c >= 0 ? page.utterances.classes[c] : "–");
  page.groupName = function (column, i) {
    const own = page.utterances.groups[column];
    const code = own.codes[i];
    return code >= 0 ? own.values[code] : "–";
  };

  // How confidently a system is wrong: p(predicted) - p(label), 0 where it is right, NaN where that isn't known.
  page.margins = function (system) {
    const { n, labels, systems } = page.utterances;
    const own = systems[system];
    if (own.margins) return own.margins;
    const found = new Float32Array(n).fill(NaN);
    for (let i = 0; own.predicted && i < n; i++) {
      const label = labels[i], predicted = own.predicted[i];
      if (label < 0 || predicted < 0) continue;
      if (label === predicted) found[i] = 0;
      else found[i] = own.probabilities ? page.probability(system, i, predicted) - page.probability(system, i, label) : 1;
    }
    own.margins = found;
    return found;
  };

  // How far a system's attributes are from the annotators', as a share of the scale: the mean over those that are known.
  page.deviations = function (system) {
    const { n, attributes, ranges, systems } = page.utterances;
    const own = systems[system];
    if (own.deviations) return own.deviations;
    const sums = new Float32Array(n), counts = new Uint8Array(n);
    for (const [name, values] of Object.entries(own.attributes)) {
      const [low, high] = ranges[name];
      for (let i = 0; i < n; i++) {
        const apart = Math.abs(values[i] - attributes[name][i]) / (high - low);
        if (!Number.isNaN(apart)) { sums[i] += apart; counts[i] += 1; }
      }
    }
    own.deviations = sums.map((sum, i) => (counts[i] ? sum / counts[i] : NaN));
    return own.deviations;
  };

  page.confidence = function (system, i) {
    const own = page.utterances.systems[system];
    return own.predicted && own.predicted[i] >= 0 ? page.probability(system, i, own.predicted[i]) : NaN;
  };

  // The cell of the confusion matrix, the part and the groups that an utterance must be in; null filters nothing.
  page.isShown = function (i, filter, system) {
    const { labels, systems, groups } = page.utterances;
    const predicted = systems[system].predicted;
    if (filter.label !== null && labels[i] !== filter.label) return false;
    if (filter.predicted !== null && (!predicted || predicted[i] !== filter.predicted)) return false;
    if (filter.errors && !(predicted && labels[i] >= 0 && predicted[i] >= 0 && predicted[i] !== labels[i])) return false;
    for (const [column, code] of Object.entries(filter.groups)) if (groups[column].codes[i] !== code) return false;
    if (filter.points && !filter.points.has(i)) return false;
    return !filter.search || haystack(i).includes(filter.search);
  };

  let haystacks = null;
  function haystack(i) {
    haystacks = haystacks || new Array(page.utterances.n);
    if (haystacks[i] === undefined) {
      const { ids, texts } = page.utterances;
      haystacks[i] = `${ids[i]}\n${texts ? texts[i] : ""}`.toLowerCase();
    }
    return haystacks[i];
  }

  page.noFilter = () => ({ label: null, predicted: null, errors: false, groups: {}, points: null, search: "" });
  page.filterBy = (values) => page.choose({ filter: { ...page.chosen.filter, ...values }, tablePage: 0 });

  // The rows that pass, in the chosen order.
  page.shownRows = function () {
    const { filter, system, order } = page.chosen;
    const rows = [];
    for (let i = 0; i < page.utterances.n; i++) if (page.isShown(i, filter, system)) rows.push(i);
    const key = orderBy(order.by)(system);
    if (key === null) return order.down ? rows.reverse() : rows;
    const sign = order.down ? -1 : 1;
    const isText = rows.length > 0 && typeof key(rows[0]) === "string";
    const values = new Map(rows.map((i) => [i, key(i)]));
    rows.sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (isText) return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;  // unknown last
      return sign * (x - y) || a - b;
    });
    return rows;
  };

  // An order by its name; those of groups (their codes follow the names) and attributes carry the column's.
  function orderBy(by) {
    if (by in page.orders) return page.orders[by];
    const [kind, ...rest] = by.split(" "), name = rest.join(" ");
    if (kind === "attribute") return () => (i) => page.utterances.attributes[name][i];
    return () => (i) => (page.utterances.groups[name].codes[i] < 0 ? NaN : page.utterances.groups[name].codes[i]);
  }

  // What the table can be sorted by: from the system to a key of a row; null is the manifest's own order.
  page.orders = {
    row: () => null,
    id: () => (i) => page.utterances.ids[i],
    label: () => (i) => (page.utterances.labels[i] < 0 ? NaN : page.utterances.labels[i]),
    predicted: (system) => (i) => {
      const own = page.utterances.systems[system].predicted;
      return own && own[i] >= 0 ? own[i] : NaN;
    },
    confidence: (system) => (i) => page.confidence(system, i),
    margin: (system) => { const own = page.margins(system); return (i) => own[i]; },
    off: (system) => { const own = page.deviations(system); return (i) => own[i]; },
    votes: () => (i) => page.utterances.voteEntropy[i],
    duration: () => (i) => page.utterances.durations[i],
    text: () => (i) => page.utterances.texts[i].toLowerCase(),
  };
})(Medusa);
