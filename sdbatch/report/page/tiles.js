// One asset as a picture with its badges and caption, as the sheet and the matrix show it; and which one has the focus.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, R = S.review;
  var WORDS = { approved: "approved", rejected: "rejected", picked: "picked" };
  var SIGNS = { approved: "\u2713", rejected: "\u2715", picked: "\u2605" };
  var BARE = /^(true|false|-?\d+(\.\d+)?)$/;
  var isStill = window.matchMedia("(prefers-reduced-motion: reduce)");
  var T = S.tiles = {};

  T.picture = function (row, isWanted) {
    if (!D.has("thumbs", row)) {
      return S.el("div", { class: "nothing" }, [
        S.el("strong", { text: D.text(row, "status") }), S.el("span", { text: D.text(row, "error_type") })]);
    }
    var image = S.el("img", { alt: "", decoding: "async", draggable: "false" });
    if (isWanted !== false) D.show(image, "thumbs", row);
    return image;
  };

  T.badge = function (row) {
    var verdict = R.verdict(row);
    return verdict in WORDS
      ? S.el("span", { class: "badge " + verdict, "aria-hidden": "true", title: WORDS[verdict], text: SIGNS[verdict] }) : null;
  };

  T.sign = function (verdict) { return SIGNS[verdict] || ""; };

  // What tells a row from the others: the owner's columns first, then settings.
  T.differs = function (row, isOnPaper) {
    return S.filter.varying.filter(function (name) {
      return name !== "prompt" && name !== "negative_prompt" && D.text(row, name) !== "" && (!isOnPaper || isPlain(name));
    }).map(function (name) {
      var text = D.text(row, name);
      return S.isolated(isPlain(name) && !BARE.test(text) ? text : S.label(name) + " " + text);
    }).join(" · ");
  };

  // What tells an asset from the others, else its prompt; sizes among the former are read from the left, whatever else is.
  T.words = function (row, isOnPaper) {
    var differs = T.differs(row, isOnPaper);
    return { dir: differs ? null : "auto", text: differs || D.text(row, "prompt") };
  };

  // Values that say by themselves what they are; a number or yes and no do not.
  function isPlain(name) { return name.slice(0, 2) === "x_" || ["size", "length", "model", "task"].indexOf(name) >= 0; }

  T.spoken = function (row) {
    var parts = [D.name(row), D.text(row, "status") === "ok" ? "" : D.text(row, "status"), R.verdict(row), T.differs(row),
      D.text(row, "prompt").slice(0, 120)];
    return parts.filter(Boolean).join(", ");
  };

  T.make = function (row, options) {
    var tile = S.el("div", { class: "tile", role: "option", "aria-selected": "false", tabindex: "-1" });
    tile.row = row;
    tile.withCaption = options.caption;
    tile.append(S.el("div", { class: "frame" }, [T.picture(row, options.isWanted)]));
    if (D.isClip(row)) clipOnHover(tile, row);
    T.refresh(tile);
    return tile;
  };

  // The badge, the caption and what is spoken besides, which follow from decisions.
  T.refresh = function (tile) {
    var row = tile.row, frame = tile.firstChild;
    frame.querySelectorAll(".badge").forEach(function (badge) { badge.remove(); });
    var badge = T.badge(row);
    if (badge) frame.append(badge);
    if (D.isClip(row)) frame.append(S.el("span", { class: "badge clip", text: "\u25b6", title: D.text(row, "length") }));
    if (S.view.stack && D.takes(row).length > 1) {
      frame.append(S.el("span", { class: "badge takes", text: D.takes(row).length + " takes" }));
    }
    tile.classList.toggle("rejected", R.verdict(row) === "rejected");
    while (tile.lastChild !== frame) tile.lastChild.remove();
    if (!tile.withCaption) { tile.append(S.el("span", { class: "unseen", text: T.spoken(row) })); return; }
    var words = T.words(row);
    tile.append(S.el("div", { class: "caption" }, [
      S.el("div", { class: "id", dir: "auto", text: D.name(row), title: D.name(row) }),
      S.el("div", { class: "faint", dir: words.dir, text: words.text, title: words.text })]),
    S.el("span", { class: "unseen", text: [R.verdict(row), D.text(row, "prompt").slice(0, 120)].filter(Boolean).join(", ") }));
  };

  T.load = function (tile) {
    var image = tile.querySelector("img");
    if (image && !image.src) D.show(image, "thumbs", tile.row);
  };

  function clipOnHover(tile, row) {
    var video = null;
    function play() {
      if (video || isStill.matches || !D.asset(row)) return;
      video = S.el("video", { src: D.asset(row), loop: true, playsinline: true, "aria-hidden": "true" });
      video.muted = true;
      tile.firstChild.append(video);
      video.play().catch(function () { stop(); });
    }
    function stop() {
      if (video) video.remove();
      video = null;
    }
    tile.addEventListener("mouseenter", play);
    tile.addEventListener("mouseleave", stop);
    tile.addEventListener("focus", play);
    tile.addEventListener("blur", stop);
  }
})();
