// Which rows are shown, in which order, and how many each value of a facet would leave.
//
//   view (facets, words, sort) + columns --> apply() --> shown rows, counts by facet
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data;
  var FACET_VALUES_MAX = 50;
  var FIXED = ["verdict", "status", "task", "model", "size", "run", "truncated", "error_type"];
  var SEARCHED = ["prompt", "negative_prompt", "note", "made_from", "error_type"];
  var SAME = ["task", "model", "size", "length", "prompt", "negative_prompt"];

  var F = S.filter = { shown: [], facets: [], same: [], varying: [], counts: new Map(), settings: [], isPart: false, numLeaving: 0 };

  // --- what the columns are -----------------------------------------------------------------------------------------

  // Facets, what is the same everywhere, and what differs; asked anew whenever rows were added.
  F.describe = function () {
    var known = {};
    ["id", "request_key", "sha256", "status", "verdict", "reviewed_verdict", "reviewed_by", "reviewed_at", "note", "task", "model",
      "prompt", "negative_prompt", "seed", "error_type", "error_message", "copied_from", "older", "n", "width",
      "height", "size", "length", "run", "truncated", "made_from", "asset"].forEach(function (name) { known[name] = true; });
    var names = Array.from(D.columns.keys());
    F.own = names.filter(function (name) { return name.slice(0, 2) === "x_"; });
    F.settings = names.filter(function (name) { return !known[name] && name.slice(0, 2) !== "x_"; });
    var used = usedValues();
    var headed = new Map(((D.head && D.head.facets) || []).map(function (facet) { return [facet.name, facet]; }));
    F.facets = FIXED.concat(F.own, F.settings).filter(function (name) {
      if (!D.columns.has(name)) return false;
      var head = headed.get(name);
      // Of a large campaign the state tells all values, the rows that are loaded only theirs.
      if (F.isPart) return name === "verdict" || (head && head.values.length > 1);
      var num = used.get(name).all.size;
      return name === "verdict" || (num > 1 && num <= FACET_VALUES_MAX);
    });
    F.same = [];
    F.varying = [];
    F.own.concat(SAME, F.settings).forEach(function (name) {
      if (!D.columns.has(name)) return;
      var values = used.get(name).made;
      var head = headed.get(name);
      var one = F.isPart ? Boolean(head && head.values.length === 1) : values.size === 1;
      if (one) {
        var value = D.columns.get(name).values[values.values().next().value];
        if (value) F.same.push([name, value]);
      } else if (values.size > 1) F.varying.push(name);
    });
  };

  // Codes that rows have, over all rows and over those that were made (a failed row has no size).
  function usedValues() {
    var status = D.columns.get("status");
    var ok = status ? status.index.get("ok") : -1;
    var used = new Map();
    D.columns.forEach(function (column, name) {
      var all = new Set(), made = new Set();
      for (var row = 0; row < D.num; row += 1) {
        if (D.dead[row]) continue;
        all.add(column.codes[row]);
        if (status && status.codes[row] === ok) made.add(column.codes[row]);
      }
      used.set(name, { all: all, made: made.size ? made : all });
    });
    return used;
  }

  // --- which rows ---------------------------------------------------------------------------------------------------

  function wordTests(text) {
    return text.toLowerCase().split(/\s+/).filter(Boolean).map(function (word) {
      var columns = SEARCHED.concat(F.own).filter(function (name) { return D.columns.has(name); }).map(function (name) {
        var column = D.columns.get(name);
        return { codes: column.codes, hits: column.values.map(function (value) {
          return value.toLowerCase().indexOf(word) >= 0;
        }) };
      });
      var ids = D.plain.get("id") || [];
      return function (row) {
        if (ids[row].toLowerCase().indexOf(word) >= 0) return true;
        for (var i = 0; i < columns.length; i += 1) if (columns[i].hits[columns[i].codes[row]]) return true;
        return false;
      };
    });
  }

  // Facets that the address names; a value that no row has leaves none.
  function activeFacets() {
    var active = [];
    S.view.facets.forEach(function (values, name) {
      if (!values.size) return;
      var column = D.columns.get(name);
      var allowed = [];
      if (column) values.forEach(function (value) {
        var code = column.index.get(value);
        if (code !== undefined) allowed[code] = true;
      });
      active.push({ name: name, codes: column ? column.codes : [], allowed: allowed });
    });
    return active;
  }

  F.apply = function () {
    var active = activeFacets(), words = wordTests(S.view.q);
    var counted = F.facets.map(function (name) {
      var column = D.column(name, D.num);  // none is there where a filter leaves no file to load
      return { name: name, codes: column.codes, counts: new Array(column.values.length).fill(0),
        place: active.findIndex(function (facet) { return facet.name === name; }) };
    });
    var shown = [];
    for (var row = 0; row < D.num; row += 1) {
      if (D.dead[row]) continue;
      var failed = -1, fails = 0;
      for (var i = 0; i < active.length && fails < 2; i += 1) {
        if (!active[i].allowed[active[i].codes[row]]) { fails += 1; failed = i; }
      }
      if (fails > 1) continue;
      var isWanted = true;
      for (var w = 0; w < words.length && isWanted; w += 1) isWanted = words[w](row);
      if (!isWanted) continue;
      // A facet counts what its own choice leaves out as well: what a click on the value would show.
      for (var c = 0; c < counted.length; c += 1) {
        if (fails === 0 || counted[c].place === failed) counted[c].counts[counted[c].codes[row]] += 1;
      }
      if (fails === 0) shown.push(row);
    }
    F.counts = new Map(counted.map(function (facet) { return [facet.name, facet.counts]; }));
    F.shown = sorted(shown);
    if (S.view.stack && S.view.view === "sheet") F.shown = stacked(F.shown);
    return F.shown;
  };

  function stacked(rows) {
    var seen = new Set();
    return rows.filter(function (row) {
      var id = D.text(row, "id");
      if (seen.has(id)) return false;
      seen.add(id);
      return true;
    });
  }

  function sorted(rows) {
    var sort = S.view.sort;
    var isDown = sort.charAt(0) === "-";
    var name = isDown ? sort.slice(1) : sort;
    var rank = name && rankOf(name);
    if (!rank) return rows;
    var sign = isDown ? -1 : 1;
    return rows.sort(function (a, b) { return sign * (rank[a] - rank[b]) || a - b; });
  }

  // The place of each row's value among the different values of a column.
  function rankOf(name) {
    var numbers = D.numbers.get(name);
    if (numbers) return numbers;
    var plain = D.plain.get(name);
    var values = plain ? Array.from(new Set(plain)) : D.columns.has(name) ? D.columns.get(name).values : null;
    if (!values) return null;
    var rank = new Map();
    values.slice().sort(S.compare).forEach(function (value, place) { rank.set(value, place); });
    if (plain) return plain.map(function (value) { return rank.get(value); });
    var byCode = values.map(function (value) { return rank.get(value); });
    return D.columns.get(name).codes.map(function (code) { return byCode[code]; });
  }

  // --- which files of a large campaign ------------------------------------------------------------------------------

  // Files that may hold rows which the facets leave; all of them where no facet chooses.
  F.chunksWanted = function () {
    var head = D.head;
    var facets = head.facets.filter(function (facet) {
      var chosen = S.view.facets.get(facet.name);
      // What was decided in this browser may lie anywhere.
      return chosen && chosen.size && !(facet.name === "verdict" && S.review.own.size);
    });
    return head.chunks.filter(function (chunk, place) {
      return facets.every(function (facet) {
        var chosen = S.view.facets.get(facet.name);
        return facet.counts[place].some(function (pair) {
          var value = facet.values[pair[0]];
          return pair[1] && chosen.has(facet.name === "verdict" ? value || "open" : value);
        });
      });
    });
  };

  // How many rows of the whole campaign have a value, where the state says so.
  F.totalOf = function (facet, value) {
    var code = facet.values.indexOf(value);
    var total = 0;
    facet.counts.forEach(function (pairs) {
      pairs.forEach(function (pair) { if (pair[0] === code) total += pair[1]; });
    });
    return total;
  };
})();
