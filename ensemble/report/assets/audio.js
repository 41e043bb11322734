// Plays an utterance: a clip inside the page, a file beside it, or what `medusa explore` serves.
"use strict";

(function (page) {
  let sources = { links: null, clips: {}, note: "" };
  let element = null;
  let caption = null;

  page.loadAudio = function () {
    sources = page.json("audio-data");
    if (!page.hasAudio()) return;
    element = page.el("audio", { controls: true, preload: "none", attr: { "aria-label": "Utterance" } });
    element.addEventListener("error", () => {
      caption.textContent = `${caption.dataset.id}: the audio can't be played here; it is looked for beside this page.`;
    });
    caption = page.el("span", { className: "playing", attr: { "aria-live": "polite" } });
    document.getElementById("player").append(element, caption);
  };

  page.hasAudio = () => sources.links !== null || sources.served !== undefined;
  page.audioNote = () => sources.note;

  page.audioSource = function (i) {
    if (sources.clips[i]) return sources.clips[i];
    return sources.served !== undefined ? `${sources.served}${i}` : sources.links && sources.links[i];
  };

  page.play = function (i) {
    const source = page.hasAudio() && page.audioSource(i);
    if (!source) return;
    document.getElementById("player").hidden = false;
    caption.dataset.id = page.utterances.ids[i];
    caption.textContent = page.utterances.ids[i];
    element.src = source;
    const playing = element.play();
    if (playing) playing.catch(() => {});  // the error event says what is wrong; an interrupted play is none
    page.choose({ playing: i });
  };

  page.playButton = function (i) {
    const id = page.utterances.ids[i];
    return page.el("button", { type: "button", className: "play", title: `Play ${id}`, disabled: !page.audioSource(i),
      attr: { "aria-label": `Play ${id}` }, on: { click: (event) => { event.stopPropagation(); page.play(i); } } }, "▶");
  };
})(Medusa);
