// The rows: files of data are loaded as scripts, and their values are kept once each, with a code for every row.
//
//   state.js --> chunks (data/*.js) --> columns of codes          thumbs/*.js, sources/*.js, recipes/*.js when shown
(function () {
  "use strict";
  var S = window.sdbatch;
  var PLAIN = { id: 1, request_key: 1, sha256: 1, seed: 1, older: 1, error_message: 1, reviewed_at: 1 };
  var CAMPAIGN_VERDICT = "reviewed_verdict";  // the column `verdict` is what counts on this page; see review.js
  var KINDS = ["thumbs", "sources", "recipes"];
  var PLACE_BITS = 6;
  var PACKS_MAX = 96;
  S.ROWS_MAX = 20000;
  var OWN_FILE = /^(state|(data|thumbs|sources|recipes)\/[0-9a-f]{16})\.js(\?\d+)?$/;

  var D = S.data = {
    head: null, num: 0, columns: new Map(), numbers: new Map(), plain: new Map(), dead: [], loaded: new Set(),
    byOutput: new Map(), before: new Map(), byId: new Map()
  };
  var refs = { thumbs: [], sources: [], recipes: [] };
  var packs = new Map();
  var loading = new Map();

  // --- loading ------------------------------------------------------------------------------------------------------

  var policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("sdbatch", {
        createScriptURL: function (url) {
          if (!OWN_FILE.test(url)) throw new TypeError("not a file of the gallery");
          return url;
        }
      })
    : { createScriptURL: function (url) { return url; } };

  D.script = function (path) {
    if (!OWN_FILE.test(path)) return Promise.reject(new Error("not a file of the gallery: " + path));
    if (loading.has(path)) return loading.get(path);
    var promise = new Promise(function (resolve, reject) {
      var script = document.createElement("script");
      script.onload = function () { script.remove(); loading.delete(path); resolve(); };
      script.onerror = function () { script.remove(); loading.delete(path); reject(new Error(path + " is not there")); };
      script.src = policy.createScriptURL(path);
      document.head.append(script);
    });
    loading.set(path, promise);
    return promise;
  };

  S.state = function (text) { D.head = JSON.parse(text); };

  S.pack = function (name, items) {
    packs.delete(name);
    packs.set(name, items);
    if (packs.size > PACKS_MAX) packs.delete(packs.keys().next().value);
  };

  var waiting = new Map();

  S.chunk = function (name, text) { waiting.set(name, JSON.parse(text)); };

  // Files that were read and are not yet among the rows; a page that grows builds its rows anew from them.
  D.read = function (name) { return waiting.has(name) ? Promise.resolve() : D.script(name + ".js"); };

  D.add = function (name, isKept) {
    if (D.loaded.has(name)) return;
    D.loaded.add(name);
    addChunk(waiting.get(name));
    if (!isKept) waiting.delete(name);
  };

  D.forget = function (names) {
    Array.from(waiting.keys()).forEach(function (name) { if (!names.has(name)) waiting.delete(name); });
  };

  D.reset = function () {
    D.num = 0;
    D.dead = [];
    refs = { thumbs: [], sources: [], recipes: [] };
    [D.columns, D.numbers, D.plain, D.loaded, D.byOutput, D.before, D.byId].forEach(function (map) { map.clear(); });
  };

  // --- columns ------------------------------------------------------------------------------------------------------

  function addChunk(chunk) {
    var first = D.num;
    var after = first + chunk.num;
    D.num = after;
    chunk.columns.forEach(function (column) {
      var name = column.name === "verdict" ? CAMPAIGN_VERDICT : column.name;
      if (column.numbers) {
        if (refs[name]) addRefs(name, column.numbers, chunk.packs[name] || {});
        else addNumbers(name, column.numbers, first);
      } else if (PLAIN[name]) addPlain(name, column, first, chunk.num);
      else addCoded(name, column, first, chunk.num);
    });
    D.columns.forEach(function (column) { while (column.codes.length < after) column.codes.push(intern(column, "")); });
    D.plain.forEach(function (values) { while (values.length < after) values.push(""); });
    D.numbers.forEach(function (values) { while (values.length < after) values.push(-1); });
    for (var row = first; row < after; row += 1) settle(row);
  }

  function addRefs(kind, numbers, names) {
    numbers.forEach(function (ref) {
      refs[kind].push(ref < 0 ? null : { pack: names[ref >> PLACE_BITS], place: ref & ((1 << PLACE_BITS) - 1) });
    });
  }

  function addNumbers(name, numbers, first) {
    if (!D.numbers.has(name)) D.numbers.set(name, new Array(first).fill(-1));
    var values = D.numbers.get(name);
    for (var i = 0; i < numbers.length; i += 1) values.push(numbers[i]);
  }

  function addPlain(name, column, first, num) {
    if (!D.plain.has(name)) D.plain.set(name, new Array(first).fill(""));
    var values = D.plain.get(name);
    for (var i = 0; i < num; i += 1) values.push(column.values[column.codes ? column.codes[i] : i]);
  }

  function addCoded(name, added, first, num) {
    var column = D.column(name, first);
    var codes = added.values.map(function (value) { return intern(column, value); });
    for (var i = 0; i < num; i += 1) column.codes.push(codes[added.codes ? added.codes[i] : i]);
  }

  D.column = function (name, num) {
    if (!D.columns.has(name)) {
      var column = { name: name, values: [""], index: new Map([["", 0]]), codes: new Array(num || 0).fill(0) };
      D.columns.set(name, column);
    }
    return D.columns.get(name);
  };

  function intern(column, value) {
    var code = column.index.get(value);
    if (code === undefined) {
      code = column.values.length;
      column.values.push(value);
      column.index.set(value, code);
    }
    return code;
  }
  D.intern = intern;

  // A later row of the same output takes the place of an earlier one, which stays as its older version.
  function settle(row) {
    var id = D.text(row, "id");
    var n = D.n(row);
    if (!D.byId.has(id)) D.byId.set(id, new Map());
    var takes = D.byId.get(id);
    if (n >= 0 && takes.has(-1)) { D.dead[takes.get(-1)] = true; takes.delete(-1); }
    if (takes.has(n)) {
      var earlier = takes.get(n);
      D.dead[earlier] = true;
      if (D.text(earlier, "request_key") !== D.text(row, "request_key")) D.before.set(row, earlier);
    }
    takes.set(n, row);
  }

  // --- one row ------------------------------------------------------------------------------------------------------

  D.text = function (row, name) {
    var plain = D.plain.get(name);
    if (plain) return plain[row];
    var column = D.columns.get(name);
    return column ? column.values[column.codes[row]] : "";
  };

  D.n = function (row) { return D.numbers.get("n")[row]; };

  D.aspect = function (row) {
    var width = D.numbers.get("width")[row], height = D.numbers.get("height")[row];
    return width > 0 && height > 0 ? Math.min(4, Math.max(0.25, width / height)) : 1;
  };

  D.isClip = function (row) { return D.text(row, "length") !== ""; };

  D.name = function (row) {
    var n = D.n(row);
    return D.text(row, "id") + (n > 0 ? " #" + n : "");
  };

  D.takes = function (row) {
    var takes = D.byId.get(D.text(row, "id"));
    return Array.from(takes.keys()).sort(function (a, b) { return a - b; }).map(function (n) { return takes.get(n); });
  };

  // Whatever a campaign says, a link leads into its own folder of assets.
  D.asset = function (row) {
    var asset = D.text(row, "asset");
    if (!asset) return "";
    if (/^[a-z0-9]+$/.test(asset)) {
      asset = "assets/" + D.text(row, "id") + "-" + D.text(row, "request_key").slice(0, 8) + "-" + D.n(row) + "." + asset;
    }
    return D.link(asset);
  };

  D.link = function (asset) { return /^assets\/[A-Za-z0-9][A-Za-z0-9._-]*$/.test(asset) ? "../" + asset : ""; };

  // --- pictures and recipes -----------------------------------------------------------------------------------------

  D.has = function (kind, row) { return Boolean(refs[kind][row] && refs[kind][row].pack); };

  D.packed = function (kind, row) {
    var ref = refs[kind][row];
    var items = ref && packs.get(ref.pack);
    return items ? items[ref.place] : null;
  };

  D.load = function (kind, row) {
    if (!D.has(kind, row)) return Promise.resolve(null);
    if (D.packed(kind, row) !== null) return Promise.resolve(D.packed(kind, row));
    return D.script(refs[kind][row].pack + ".js").then(function () { return D.packed(kind, row); });
  };

  D.packOf = function (kind, row) { return D.has(kind, row) ? refs[kind][row].pack : ""; };

  /* Older commits hold WebPs: these four bytes, RIFF, are "UklGR" in base64. */
  D.dataUrl = function (item) { return "data:image/" + (item.slice(0, 5) === "UklGR" ? "webp" : "jpeg") + ";base64," + item; };

  D.show = function (image, kind, row) {
    var known = D.packed(kind, row);
    if (known !== null) { image.src = D.dataUrl(known); return; }
    D.load(kind, row).then(function (item) {
      if (item !== null && image.isConnected) image.src = D.dataUrl(item);
    }, function () { image.alt = "(this picture is not in the gallery any more; reload the page)"; });
  };

  S.KINDS = KINDS;
})();
