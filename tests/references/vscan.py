"""VScan's two scans, as a loop over one image."""

from .image import ranked

OPTIONS = {
    "global_local": [{"global_share": 0.0}, {"global_share": 1.0}, {"windows": 2}, {"windows": 1}],
}


def global_local(scores, im, global_share=0.5, windows=4, local_depth=None):
    frames, rows, columns = im.grid
    early = im.seen[max(layer for layer in im.seen if layer <= im.layer)]
    chosen = ranked(scores)[: round(global_share * im.num_keep)]
    shown = {}
    for i, p in enumerate(im.place):
        frame, row, column = p // (rows * columns), p // columns % rows, p % columns
        window = frame, row * windows // rows, column * windows // columns
        if i not in chosen:
            shown.setdefault(window, []).append(i)
    queues = [ranked(early, own) for own in shown.values()]
    while len(chosen) < im.num_keep:
        turn = ranked(early, [queue.pop(0) for queue in queues if queue])
        chosen += turn[: im.num_keep - len(chosen)]
    return sorted(chosen)
