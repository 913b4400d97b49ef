// Puts the page together: what is loaded, the views, the keys, and a gallery that grows while a run goes on.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter, R = S.review;
  var POLL_MS = 15000, SILENT_S = 300;
  var view = S.byId("view");
  var turn = 0, wasFacets = "", frame = 0, isOld = false;
  S.focused = null;
  S.VERDICT_KEYS = { a: "approved", r: "rejected", p: "picked", u: "none" };
  S.part = function () { return S.parts[S.view.view]; };

  // --- loading ------------------------------------------------------------------------------------------------------

  // Loads what the view may need: everything, or of a large campaign up to ROWS_MAX rows that the facets may leave.
  function load() {
    turn += 1;
    var mine = turn, head = D.head;
    F.isPart = head.total > S.ROWS_MAX;
    var wanted = F.isPart ? F.chunksWanted() : head.chunks;
    var num = 0;
    wanted = wanted.filter(function (chunk) { num += chunk.num; return num - chunk.num < S.ROWS_MAX; });
    var names = wanted.map(function (chunk) { return chunk.name; });
    var isNew = names.length !== D.loaded.size || !names.every(function (name) { return D.loaded.has(name); });
    if (!isNew) return Promise.resolve(false);
    var known = keyOf(S.focused), opened = keyOf(S.box.row);
    if (!Array.from(D.loaded).every(function (name) { return names.indexOf(name) >= 0; })) {
      return Promise.all(names.map(D.read)).then(function () {
        if (mine !== turn) return false;
        D.reset();
        names.forEach(add);
        D.forget(new Set(names));
        settle(known, opened);
        return true;
      });
    }
    // The first file is shown before the others are there.
    return names.reduce(function (before, name, place) {
      return before.then(function () {
        if (mine !== turn || D.loaded.has(name)) return null;
        return D.read(name).then(function () {
          add(name);
          if (place === 0 && names.length > 1) { settle(known, opened); render(); }
        });
      });
    }, Promise.resolve()).then(function () { settle(known, opened); return true; });
  }

  function add(name) { D.add(name, D.head.state === "running" || F.isPart); }

  function keyOf(row) { return row === null ? null : [D.text(row, "id"), D.n(row)]; }

  function rowOf(key) {
    var takes = key && D.byId.get(key[0]);
    return takes && takes.has(key[1]) ? takes.get(key[1]) : null;
  }

  function settle(known, opened) {
    R.markAll();
    F.describe();
    S.focused = rowOf(known);
    if (opened) S.box.moved(rowOf(opened));
  }

  function lost(error) {
    S.byId("summary").textContent = "The gallery is not whole: " + error.message + ". Write it anew with sdbatch report.";
  }

  // --- showing ------------------------------------------------------------------------------------------------------

  function render() {
    var started = performance.now();
    document.body.dataset.view = S.view.view;
    F.apply();
    F.numLeaving = 0;
    if (F.shown.indexOf(S.focused) < 0) S.focused = null;
    S.facets.show();
    S.facets.showSame();
    controls();
    summary();
    if (F.shown.length) S.part().show(view);
    else empty();
    S.lastRenderMs = performance.now() - started;
  }

  function controls() {
    document.querySelectorAll("[data-view]").forEach(function (button) {
      if (button.tagName === "BUTTON") button.setAttribute("aria-pressed", String(button.dataset.view === S.view.view));
    });
    S.byId("density").value = S.view.h;
    S.byId("stack").checked = Boolean(S.view.stack);
    if (document.activeElement !== S.byId("search")) S.byId("search").value = S.view.q;
    var hasTakes = (D.numbers.get("n") || []).some(function (n) { return n > 0; });
    S.byId("stack-label").hidden = !hasTakes;
    var select = S.byId("sort");
    var names = ["", "id"].concat(F.varying.filter(function (name) { return name !== "prompt"; }), ["verdict", "seed"]);
    S.clear(select);
    names.forEach(function (name) {
      select.append(S.el("option", { value: name, text: name ? S.label(name) : D.head.state === "running" ? "as made" : "manifest order" }));
    });
    if (S.view.sort && names.indexOf(S.view.sort) < 0) select.append(S.el("option", { value: S.view.sort, text: S.label(S.view.sort) }));
    select.value = S.view.sort;
  }

  function summary() {
    var num = 0, without = 0;
    for (var row = 0; row < D.num; row += 1) {
      if (D.dead[row]) continue;
      num += 1;
      if (D.text(row, "asset") === "") without += 1;
    }
    var shown = F.shown.length, made = num - without;
    var text = shown === num ? S.number(made) + (made === 1 ? " asset" : " assets") : S.number(shown) + " of " + S.number(num);
    if (shown === num && without) text += "; " + S.number(without) + (without === 1 ? " row has none" : " rows have none");
    if (F.isPart) text += num < D.head.total ? " loaded, of " + S.number(D.head.total) + " in all; a filter brings others" : "";
    S.byId("summary").textContent = text;
  }

  function empty() {
    var isFiltered = S.view.facets.size || S.view.q;
    S.clear(view).append(S.el("div", { class: "empty" }, isFiltered
      ? [S.el("p", { text: "No asset matches these filters." }), S.el("button", { type: "button", text: "Clear filters", onclick: S.facets.clear })]
      : [S.el("p", { text: D.head.state === "running" ? "Nothing is made yet; the first pictures come within a minute or so." : "There is no asset in this campaign." })]));
  }

  function banner() {
    var head = D.head, box = S.clear(S.byId("banner"));
    var made = head.pending ? S.number(head.made) + " of " + S.number(head.pending) + " made" : "";
    var parts = [];
    if (head.state === "running") {
      parts = ["Running", made, head.eta_s === null || head.eta_s === undefined ? "" : S.duration(head.eta_s) + " to go",
        head.workers ? head.workers + (head.workers === 1 ? " worker" : " workers") : "waiting for a worker",
        head.failed ? S.number(head.failed) + " failed" : ""];
      var age = head.updated_s ? Date.now() / 1000 - head.updated_s : 0;
      parts.push(age > SILENT_S ? "no news for " + S.duration(age) + ": the run may have ended"
        : head.updated_s ? "as of " + new Date(head.updated_s * 1000).toLocaleTimeString() : "");
    } else if (["interrupted", "cancelled", "stopped", "dead"].indexOf(head.state) >= 0) {
      parts = [{ interrupted: "Interrupted", cancelled: "Cancelled", stopped: "Stopped", dead: "The run's driver is gone" }[head.state],
        made, head.message || "run again to go on"];
    } else if (head.state === "failed") parts = ["Done", head.failed ? S.number(head.failed) + " rows failed" : "some rows failed"];
    box.hidden = !parts.length && !isOld;
    box.className = head.state;
    if (head.state === "running" && head.pending) {
      box.append(S.el("progress", { max: head.pending, value: head.made, "aria-label": "made" }), " ");
    }
    if (isOld) {
      box.append("The campaign has changed since this page was opened; what is decided on older pictures does not count. ",
        S.el("button", { type: "button", text: "Show it as it is", onclick: function () { location.reload(); } }), " ");
    }
    box.append(parts.filter(Boolean).join(" · "));
  }

  // --- what changes the view ----------------------------------------------------------------------------------------

  function facetsKey() {
    return JSON.stringify(Array.from(S.view.facets.entries()).map(function (entry) { return [entry[0], Array.from(entry[1])]; }));
  }

  S.changed = function () {
    S.write();
    view.scrollTop = 0;
    var key = facetsKey();
    if (F.isPart && key !== wasFacets) load().then(render, lost);
    else render();
    wasFacets = key;
  };

  // After a decision. What is shown stays in its place until somebody applies the filters again: were pictures to leave
  // or to change places under the keys, the next key would mean another one.
  S.refresh = function (row) {
    S.part().refresh(row);
    var shown = F.shown, matching = new Set(F.apply());
    F.shown = shown;
    F.numLeaving = S.view.facets.has("verdict") ? shown.filter(function (one) { return !matching.has(one); }).length : 0;
    S.facets.show();
  };

  function later() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(function () { if (F.shown.length) S.part().scrolled(view); });
  }

  function bind() {
    view.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(function () {
      if (S.view.view === "sheet" && F.shown.length && view.clientWidth !== S.parts.sheet.width) S.parts.sheet.show(view);
      else later();
    }).observe(view);
    document.querySelectorAll("#views button").forEach(function (button) {
      button.addEventListener("click", function () { S.view.view = button.dataset.view; S.changed(); });
    });
    S.byId("search").addEventListener("input", function () { S.view.q = S.byId("search").value; S.changed(); });
    S.byId("density").addEventListener("input", function () { S.view.h = Number(S.byId("density").value); S.write(); render(); });
    S.byId("stack").addEventListener("change", function () { S.view.stack = S.byId("stack").checked ? "1" : ""; S.changed(); });
    S.byId("sort").addEventListener("change", function () { S.view.sort = S.byId("sort").value; S.changed(); });
    S.byId("rows").addEventListener("change", function () { S.view.rows = S.byId("rows").value; S.changed(); });
    S.byId("columns").addEventListener("change", function () { S.view.cols = S.byId("columns").value; S.changed(); });
    S.byId("filters").addEventListener("click", function () {
      var isOpen = document.body.classList.toggle("with-facets");
      S.byId("filters").setAttribute("aria-expanded", String(isOpen));
    });
    S.byId("keys").addEventListener("click", help);
    S.byId("print").addEventListener("click", S.paper.print);
    view.addEventListener("click", function (event) {
      var target = event.target.closest(".tile, button.open");
      if (target) S.box.open(target.row, target.among);
    });
    view.addEventListener("focusin", function (event) {
      var target = event.target.closest(".tile, button.open");
      if (target) S.focused = target.row;
    });
    window.addEventListener("hashchange", function () { S.view = S.read(); S.changed(); });
    document.addEventListener("keydown", keyed);
  }

  // Keys act on the picture that has the focus, which a person sees, and on no other that had it before.
  function focusedTile() {
    var tile = view.contains(document.activeElement) ? document.activeElement.closest(".tile, button.open") : null;
    if (tile) S.focused = tile.row;
    return tile;
  }

  function keyed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    var tag = event.target.tagName;
    var isText = tag === "SELECT" || tag === "TEXTAREA" || (tag === "INPUT" && event.target.type !== "checkbox");
    if (isText) return;
    var key = event.key.toLowerCase(), isInView = view.contains(event.target) || event.target === document.body;
    if (event.key === "/") S.byId("search").focus();
    else if (event.key === "?") help();
    else if (!F.shown.length || !isInView) return;
    else if (/^(Arrow|Home|End)/.test(event.key)) {
      var row = S.focused === null || !view.contains(document.activeElement) ? S.part().order()[0] : S.part().step(event.key);
      if (row !== null && row !== undefined) S.part().focus(row);
    } else if (!focusedTile()) return;
    else if (event.key === "Enter" || event.key === " ") {
      S.box.open(S.focused, focusedTile().among);
    } else if (S.VERDICT_KEYS[key]) {
      var decided = S.focused;
      if (!R.decide(decided, S.VERDICT_KEYS[key])) return;
      S.refresh(decided);
      var next = key === "u" ? decided : S.part().step(S.view.view === "table" ? "ArrowDown" : "ArrowRight");
      S.part().focus(next === null || next === undefined ? decided : next);
    } else if (key === "n" || /^[1-9]$/.test(key)) {
      S.box.open(S.focused);
      S.byId("box").dispatchEvent(new KeyboardEvent("keydown", { key: event.key }));
    } else return;
    event.preventDefault();
  }

  function help() {
    var keys = [["\u2190 \u2192 \u2191 \u2193", "from picture to picture"], ["Enter", "open"], ["A", "approve"], ["R", "reject"], ["P", "pick: of its takes this one is wanted"],
      ["U", "clear the verdict"], ["N", "note"], ["1 to 9", "take 0 to 8 of this picture"], ["S", "source over the picture, by the slider"], ["Z", "every pixel (1:1)"],
      ["/", "search"], ["Ctrl+P", "print what is shown"], ["Esc", "close"]];
    var list = S.el("dl", { class: "keys" });
    keys.forEach(function (pair) { list.append(S.el("dt", {}, [S.el("kbd", { text: pair[0] })]), S.el("dd", { text: pair[1] })); });
    var dialog = S.byId("help");
    S.clear(dialog).append(S.el("h1", { id: "help-title", text: "Keys" }), list,
      S.el("p", { class: "faint", text: "Decisions are kept in this browser until you download them as a file, or are saved at once where sdbatch review serves this page." }),
      S.el("button", { type: "button", text: "Close", onclick: function () { dialog.close(); } }));
    dialog.showModal();
  }

  // --- while a run goes on ------------------------------------------------------------------------------------------

  function poll() {
    if (D.head.state !== "running" && (isOld || !R.isServed)) return;
    setTimeout(function () {
      if (D.head.state !== "running") { S.lookForNewer().catch(function () { /* the next turn asks again */ }).then(poll); return; }
      var before = JSON.stringify(D.head.chunks);
      D.script("state.js?" + Date.now()).then(function () {
        if (JSON.stringify(D.head.chunks) === before && D.head.state === "running") { banner(); return null; }
        return S.look();
      }).catch(function () { /* the next turn asks again */ }).then(poll);
    }, S.pollMs || POLL_MS);
  }

  // Another run may have made anew what this page shows. It stays as it is, since somebody decides on it, and says so.
  S.lookForNewer = function () {
    var shown = D.head;
    return D.script("state.js?" + Date.now()).then(function () {
      var newer = D.head;
      D.head = shown;
      isOld = newer.run !== shown.run || JSON.stringify(newer.chunks) !== JSON.stringify(shown.chunks);
      banner();
    });
  };

  // Takes up what the state names now.
  S.look = function () { banner(); return load().then(grown); };

  function grown(isNew) {
    if (!isNew) return;
    var hadFocus = view.contains(document.activeElement) ? S.focused : null;
    var top = view.scrollTop;
    render();
    view.scrollTop = top;
    if (hadFocus !== null && S.focused !== null) S.part().focus(S.focused);
    else if (hadFocus !== null) view.focus();
  }

  function openNamed() {
    var place = S.view.open.lastIndexOf("/");
    var row = place > 0 ? rowOf([S.view.open.slice(0, place), Number(S.view.open.slice(place + 1))]) : null;
    if (row !== null) S.box.open(row);
  }

  bind();
  D.script("state.js").then(function () {
    S.byId("search").value = S.view.q;
    wasFacets = facetsKey();
    banner();
    R.start();
    return load();
  }).then(function () { render(); openNamed(); S.isReady = true; poll(); }, lost);
})();
