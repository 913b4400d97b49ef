// The contact sheet: pictures of one height fill each line; only the lines on the screen are in the page.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter, T = S.tiles;
  var GAP = 8, CAPTION = 38, PADDING = 16, OVERSCAN = 500, CAPTION_FROM = 120;
  var canvas = null, tiles = new Map(), lines = [], position = 0, settled = 0;
  var sheet = S.parts.sheet = {};

  // Lines of pictures: each is as high as makes it as wide as the view; the last stays as it is.
  function layOut(rows, width, height) {
    var found = [], line = [], sum = 0, top = PADDING;
    var caption = height >= CAPTION_FROM ? CAPTION : 0;
    function end(isLast) {
      var room = width - GAP * (line.length - 1);
      var high = isLast ? Math.min(height, room / sum) : room / sum;
      var left = PADDING;
      var places = line.map(function (place) {
        var wide = D.aspect(rows[place]) * high;
        var box = { place: place, left: left, width: wide };
        left += wide + GAP;
        return box;
      });
      found.push({ top: top, height: high, first: line[0], boxes: places });
      top += high + caption + GAP;
      line = [];
      sum = 0;
    }
    for (var place = 0; place < rows.length; place += 1) {
      line.push(place);
      sum += D.aspect(rows[place]);
      if (sum * height + GAP * (line.length - 1) >= width) end(false);
    }
    if (line.length) end(true);
    return { lines: found, total: top + PADDING, caption: caption };
  }

  sheet.show = function (view) {
    var height = S.view.h;
    var top = view.scrollTop;
    canvas = S.el("div", { class: "canvas", role: "listbox", "aria-label": S.number(F.shown.length) + " assets" });
    tiles = new Map();
    S.clear(view).append(canvas);
    sheet.width = view.clientWidth;
    var laid = layOut(F.shown, Math.max(100, view.clientWidth - 2 * PADDING), height);
    lines = laid.lines;
    canvas.style.height = laid.total + "px";
    canvas.classList.toggle("captioned", laid.caption > 0);
    sheet.caption = laid.caption;
    position = Math.max(0, F.shown.indexOf(S.focused));
    view.scrollTop = top;
    draw(view, true);
  };

  function lineAt(y) {
    var low = 0, high = lines.length - 1;
    while (low < high) {
      var middle = (low + high + 1) >> 1;
      if (lines[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  function draw(view, isSettled) {
    if (!lines.length) return;
    var first = lineAt(view.scrollTop - OVERSCAN);
    var last = lineAt(view.scrollTop + view.clientHeight + OVERSCAN);
    var wanted = new Set([position]);
    for (var number = first; number <= last; number += 1) {
      lines[number].boxes.forEach(function (box) { wanted.add(box.place); });
    }
    tiles.forEach(function (tile, place) { if (!wanted.has(place)) { tile.remove(); tiles.delete(place); } });
    var fresh = [];
    wanted.forEach(function (place) { if (!tiles.has(place) && place < F.shown.length) fresh.push(place); });
    fresh.sort(function (a, b) { return a - b; }).forEach(function (place) {
      var line = lines[lineOf(place)];
      var box = line.boxes[place - line.first];
      var tile = T.make(F.shown[place], { caption: sheet.caption > 0, isWanted: isSettled });
      tile.style.left = box.left + "px";
      tile.style.top = line.top + "px";
      tile.style.width = box.width + "px";
      tile.firstChild.style.height = line.height + "px";
      tile.setAttribute("aria-posinset", place + 1);
      tile.setAttribute("aria-setsize", F.shown.length);
      tile.place = place;
      tile.tabIndex = place === position ? 0 : -1;
      tiles.set(place, tile);
      canvas.append(tile);
    });
    // Pictures are read once the scrolling pauses: a flight over thousands of them reads none.
    if (isSettled) tiles.forEach(T.load);
    else {
      clearTimeout(settled);
      settled = setTimeout(function () { tiles.forEach(T.load); }, 60);
    }
  }

  function lineOf(place) {
    var low = 0, high = lines.length - 1;
    while (low < high) {
      var middle = (low + high + 1) >> 1;
      if (lines[middle].first <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  sheet.scrolled = function (view) { draw(view, false); };

  sheet.refresh = function (row) {
    tiles.forEach(function (tile) { if (tile.row === row) T.refresh(tile); });
  };

  sheet.order = function () { return F.shown; };

  sheet.focus = function (row) {
    var place = F.shown.indexOf(row);
    if (place < 0) return;
    var before = tiles.get(position);
    if (before) { before.tabIndex = -1; before.setAttribute("aria-selected", "false"); }
    position = place;
    S.focused = row;
    var view = S.byId("view"), line = lines[lineOf(place)];
    if (line.top < view.scrollTop + PADDING) view.scrollTop = line.top - PADDING;
    var bottom = line.top + line.height + sheet.caption + PADDING;
    if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight;
    draw(view, true);
    var tile = tiles.get(place);
    tile.tabIndex = 0;
    tile.setAttribute("aria-selected", "true");
    tile.focus({ preventScroll: true });
  };

  // Where an arrow key leads from the picture that has the focus.
  sheet.step = function (key) {
    var place = position, number = lineOf(place);
    if (key === "ArrowLeft") place -= 1;
    else if (key === "ArrowRight") place += 1;
    else if (key === "Home") place = 0;
    else if (key === "End") place = F.shown.length - 1;
    else {
      var line = lines[number + (key === "ArrowDown" ? 1 : -1)];
      if (!line) return null;
      var box = lines[number].boxes[place - lines[number].first];
      var middle = box.left + box.width / 2;
      place = line.boxes.reduce(function (best, other) {
        return Math.abs(other.left + other.width / 2 - middle) < Math.abs(best.left + best.width / 2 - middle) ? other : best;
      }).place;
    }
    return place >= 0 && place < F.shown.length ? F.shown[place] : null;
  };

  sheet.layOut = layOut;
})();
