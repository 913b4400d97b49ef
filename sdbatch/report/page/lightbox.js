// The light box: one asset large, its source over it by a slider, its takes as a strip, and what to decide about it.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, R = S.review, T = S.tiles;
  var B = S.box = { row: null };
  var among = null, parts = {}, isActual = false;
  var VERDICTS = [["approved", "Approve", "A"], ["rejected", "Reject", "R"], ["picked", "Pick", "P"], ["none", "Clear", "U"]];

  function build() {
    var dialog = S.byId("box");
    parts.stage = S.el("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "Picture" });
    parts.strip = S.el("div", { class: "strip", role: "group", "aria-label": "Takes" });
    parts.details = S.el("div", { class: "details" });
    parts.title = S.el("h1", { id: "box-title" });
    parts.place = S.el("span", { class: "faint" });
    parts.slider = S.el("input", { type: "range", min: "0", max: "100", value: "0", "aria-label": "How much of the source is shown", oninput: wipe });
    parts.compare = S.el("label", { class: "compare" }, ["source ", parts.slider]);
    parts.actual = S.el("button", { type: "button", text: "1:1", title: "every pixel ( Z )", "aria-pressed": "false", onclick: actual });
    parts.open = S.el("a", { target: "_blank", rel: "noopener", text: "Open the file" });
    parts.verdicts = VERDICTS.map(function (verdict) {
      var button = S.el("button", { type: "button", class: "verdict " + verdict[0], title: "key " + verdict[2], "aria-pressed": "false", text: verdict[1],
        onclick: function () { B.decide(verdict[0]); } });
      return button;
    });
    parts.note = S.el("input", { type: "text", maxlength: "1000", placeholder: "note", "aria-label": "Note", onchange: function () {
      R.decide(B.row, null, parts.note.value.trim());
      refresh();
      S.refresh(B.row);
    } });
    S.clear(dialog).append(
      S.el("div", { class: "bar" }, [
        S.el("button", { type: "button", text: "\u2039", "aria-label": "previous", title: "previous ( \u2190 )", onclick: function () { B.step(-1); } }),
        S.el("button", { type: "button", text: "\u203a", "aria-label": "next", title: "next ( \u2192 )", onclick: function () { B.step(1); } }),
        parts.title, parts.place, parts.compare, parts.actual, parts.open,
        S.el("button", { type: "button", text: "\u2715", "aria-label": "close", title: "close ( Esc )", onclick: function () { dialog.close(); } })]),
      S.el("div", { class: "inside" }, [
        S.el("div", { class: "left" }, [parts.stage, parts.strip]),
        S.el("div", { class: "right" }, [S.el("div", { class: "verdicts", role: "group", "aria-label": "Verdict" }, parts.verdicts), parts.note, parts.details])]));
    dialog.addEventListener("close", closed);
    dialog.addEventListener("keydown", keyed);
  }

  // `rows` are those that the arrows lead through; all that the view shows by default.
  B.open = function (row, rows) {
    if (!parts.stage) build();
    among = rows || null;
    show(row);
    var dialog = S.byId("box");
    if (!dialog.open) { dialog.setAttribute("aria-labelledby", "box-title"); dialog.showModal(); }
    parts.stage.focus();
  };

  function order() { return among && among.indexOf(B.row) >= 0 ? among : S.part().order(); }

  function show(row) {
    var wasSource = parts.slider.value;
    B.row = row;
    S.view.open = D.text(row, "id") + "/" + D.n(row);
    S.write();
    S.focused = row;
    var rows = order(), place = rows.indexOf(row);
    parts.title.textContent = D.name(row);
    parts.place.textContent = place < 0 ? "" : S.number(place + 1) + " of " + S.number(rows.length);
    parts.compare.hidden = !D.has("sources", row);
    parts.slider.value = D.has("sources", row) ? wasSource : 0;
    stage(row);
    strip(row);
    S.clear(parts.details).append(S.details(row));
    parts.details.scrollTop = 0;
    var link = D.asset(row);
    parts.open.hidden = !link;
    if (link) parts.open.setAttribute("href", link);
    refresh();
  }

  // The thumbnail stands there at once, until the file itself is read; it stays where the folder of assets is not at hand.
  function stage(row) {
    var frame = S.el("div", { class: "picture" });
    S.clear(parts.stage).append(frame);
    parts.stage.classList.toggle("actual", isActual);
    var small = S.el("img", { class: "result", alt: T.spoken(row) });
    if (D.has("thumbs", row)) { frame.append(small); D.show(small, "thumbs", row); }
    else frame.append(S.el("div", { class: "nothing large" }, [S.el("strong", { text: D.text(row, "status") }),
      S.el("span", { text: [D.text(row, "error_type"), D.text(row, "error_message")].filter(Boolean).join(": ") })]));
    var link = D.asset(row);
    if (link && D.isClip(row)) {
      var video = S.el("video", { class: "result", src: link, controls: true, loop: true, playsinline: true, "aria-label": T.spoken(row) });
      video.muted = true;
      video.addEventListener("loadeddata", function () { small.remove(); if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(function () {}); });
      video.addEventListener("error", function () { video.remove(); });
      frame.append(video);
    } else if (link) {
      var large = S.el("img", { class: "result", alt: T.spoken(row) });
      large.onload = function () { if (small.isConnected) small.replaceWith(large); };
      large.src = link;
    }
    var width = D.numbers.get("width")[row], height = D.numbers.get("height")[row];
    if (width > 0) {
      frame.style.setProperty("--wide", width + "px");
      frame.style.setProperty("--high", height + "px");
      frame.style.setProperty("--aspect", width / height);
    }
    if (D.has("sources", row)) {
      parts.source = S.el("img", { class: "source", alt: "" });
      frame.append(parts.source);
      D.show(parts.source, "sources", row);
    } else parts.source = null;
    wipe();
  }

  function wipe() {
    if (!parts.source) return;
    var share = Number(parts.slider.value);
    parts.source.style.clipPath = "inset(0 " + (100 - share) + "% 0 0)";
    parts.source.hidden = share === 0;
  }

  function strip(row) {
    var takes = D.takes(row);
    S.clear(parts.strip).hidden = takes.length < 2;
    takes.forEach(function (take) {
      var button = S.el("button", { type: "button", "aria-pressed": String(take === row),
        title: "take " + D.n(take) + " ( " + (D.n(take) + 1) + " )", onclick: function () { show(take); } },
        [T.picture(take), T.badge(take), S.el("span", { class: "unseen", text: "take " + Math.max(0, D.n(take)) + (R.verdict(take) ? ", " + R.verdict(take) : "") })]);
      parts.strip.append(button);
    });
  }

  function refresh() {
    var row = B.row, verdict = R.verdict(row) || "none", can = R.canDecide(row);
    parts.verdicts.forEach(function (button, place) {
      button.setAttribute("aria-pressed", String(VERDICTS[place][0] === verdict && verdict !== "none"));
      button.disabled = !can;
    });
    parts.note.disabled = !can;
    parts.note.value = R.note(row);
  }

  function actual() {
    isActual = !isActual;
    parts.actual.setAttribute("aria-pressed", String(isActual));
    parts.stage.classList.toggle("actual", isActual);
  }

  B.step = function (step) {
    var rows = order(), place = rows.indexOf(B.row);
    if (place < 0 && rows.length) show(rows[0]);
    else if (rows[place + step] !== undefined) show(rows[place + step]);
  };

  // A verdict leads on to the next picture, as at a light table; a note and a cleared verdict stay.
  B.decide = function (verdict) {
    var row = B.row;
    if (!R.decide(row, verdict)) return;
    S.refresh(row);
    if (verdict !== "none") B.step(1);
    if (B.row === row) { strip(row); refresh(); }
  };

  function keyed(event) {
    if (event.target.tagName === "INPUT" && event.target.type === "text") {
      if (event.key === "Enter") parts.stage.focus();
      event.stopPropagation();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    var key = event.key.toLowerCase();
    var isSlider = event.target === parts.slider;
    if (key === "arrowright" && !isSlider) B.step(1);
    else if (key === "arrowleft" && !isSlider) B.step(-1);
    else if (S.VERDICT_KEYS[key]) B.decide(S.VERDICT_KEYS[key]);
    else if (key === "n") parts.note.focus();
    else if (key === "z") actual();
    else if (key === "s" && parts.source) { parts.slider.value = Number(parts.slider.value) > 0 ? 0 : 50; wipe(); }
    else if (/^[1-9]$/.test(key)) take(Number(key) - 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function take(n) {
    var found = D.takes(B.row).find(function (row) { return D.n(row) === n; });
    if (found !== undefined) show(found);
  }

  // A page that grows has numbered its rows anew.
  B.moved = function (row) {
    B.row = row;
    among = null;
  };

  function closed() {
    var row = B.row;
    B.row = null;
    S.view.open = "";
    S.write();
    if (row !== null) S.part().focus(row);
  }
})();
