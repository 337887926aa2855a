/* How one call works a convolution off: its geometry, the cuts that keep its data in the second-level cache, and the
 * list of offsets that the kernels read. Nothing here depends on the element type but its size.
 *
 * Both directions are one operation, a *gather*: each output position adds up value * source over its weights. The
 * forward gathers from the input, the input's gradient from the output's gradient. Along either axis,
 *
 *     place(out) = (out + lead) / out_step      where it reads, in steps of in_step of the padded source
 *     class(out) = (out + lead) % out_step      only the taps of this class apply to it
 *
 * where one of the steps is the stride and the other is 1.
 */

#ifndef CONV_PLAN_H
#define CONV_PLAN_H

enum {
    LINE = 64,             /* bytes: a cache line, the unit in which strips are cut on every instruction set */
    STRIP_LINES = 8,       /* what a strip should have for its kernel to be worth its start */
    SOURCE_BYTES = 960 << 10, /* of packed source: most of a second-level cache */
    FEW_BYTES = 96 << 10,  /* what a strip of the widest tile may read for its channels to count as few */
    DOTS = 256,            /* dot products in progress: half a nearest cache */
};

enum { WANT_OUT = 1, WANT_GRAD = 2 }; /* of a product */

/* The pattern, in the order in which one direction reads it. */
typedef struct {
    size_t n_out, n_in;
    int32_t *starts;   /* n_out + 1: of each output channel's weights */
    int32_t *channels; /* of each weight: its source channel */
    int32_t *taps;     /* of each weight: ky * kw + kx */
    int32_t *order;    /* of each weight: its index among the values */
} Side;

typedef struct {
    size_t out, in; /* positions on either side */
    size_t in_step, out_step, lead;
    size_t pad;     /* zeros before the source */
    size_t reach;   /* greatest shift */
    size_t span;    /* of the padded source that one place reads */
    int backward;
} Axis;

static size_t round_up(size_t a, size_t b) { return ceil_div(a, b) * b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static Axis make_axis(int backward, size_t x, size_t y, size_t taps, size_t stride, size_t pad)
{
    if (!backward)
        return (Axis){.out = y, .in = x, .in_step = stride, .out_step = 1, .pad = pad, .reach = (taps - 1) / stride,
                      .span = taps};
    const size_t reach = (taps - 1) / stride;
    return (Axis){.out = x, .in = y, .in_step = 1, .out_step = stride, .lead = pad, .pad = reach, .reach = reach,
                  .span = reach + 1, .backward = 1};
}

static size_t place(const Axis *axis, size_t out) { return (out + axis->lead) / axis->out_step; }
static size_t class_of(const Axis *axis, size_t out) { return (out + axis->lead) % axis->out_step; }

/* A tap reads in_step * (place + shift) + phase. */
static size_t shift_of(const Axis *axis, size_t tap)
{
    return axis->backward ? axis->reach - tap / axis->out_step : tap / axis->in_step;
}

static size_t phase_of(const Axis *axis, size_t tap) { return tap % axis->in_step; }

/* The packed source is [row][channel][phase][column][sample of the tile]. Along the columns a phase holds every
 * in_step-th of the padded source, so that neighbouring outputs read neighbouring columns at any stride; rows come in
 * their own order. */
typedef struct {
    const Side *side;
    Axis rows, cols;
    size_t batch, itemsize;
    size_t width, tiles;             /* a tile: `width` samples, padded with zeros, or all samples unpadded */
    size_t places, segment, segments; /* of the columns, and how many of them are worked on at once */
    size_t band, bands;              /* output rows worked on at once */
    size_t block, blocks;            /* source channels worked on at once */
    size_t phase, channel, row;      /* strides of the packed source, in elements */
    size_t source_rows;              /* of the packed source */
    size_t lines;                    /* of an output row in a segment, all classes together, at most */
    size_t classes, cells;
    uint32_t *starts;                /* of the weights of [block][output channel][class]; cells + 1 */
    uint32_t *offsets;               /* of each weight: where it reads, from its position's place on */
    int32_t *order;                  /* of each weight: its index among the values */
} Plan;

/* Packed rows that the output rows [y, end) read, the first and one past the last. */
static size_t first_row(const Plan *plan, size_t y) { return place(&plan->rows, y) * plan->rows.in_step; }

static size_t past_row(const Plan *plan, size_t end)
{
    return place(&plan->rows, end - 1) * plan->rows.in_step + plan->rows.span;
}

static size_t rows_of_band(const Plan *plan, size_t band)
{
    return (ceil_div(band + plan->rows.out_step - 1, plan->rows.out_step) - 1) * plan->rows.in_step + plan->rows.span;
}

/* A tile as narrow as a cache line makes a strip of several columns, whose overlap between taps stays in the nearest
 * cache. It is wider where a row is too short to fill a strip, and where channels are so few that the work is mostly
 * moving the tensors, which goes faster in longer stretches. A batch that would waste lanes is left unpadded: its
 * strips run across columns, at the price of unaligned loads. */
static void choose_width(Plan *plan)
{
    const size_t lane = LINE / plan->itemsize, lines = ceil_div(plan->batch, lane);
    const size_t columns = (plan->cols.reach + 1) * plan->cols.in_step;
    const int few = plan->rows.span * columns * plan->side->n_in * STRIP_LINES * LINE <= FEW_BYTES;
    plan->width = lane;
    if (lines * lane * 4 > plan->batch * 5)
        plan->width = plan->batch;
    else
        while (plan->width < STRIP_LINES * lane && lines * lane % (2 * plan->width) == 0 &&
               (few || plan->places * plan->width < STRIP_LINES * lane))
            plan->width *= 2;
    plan->tiles = ceil_div(plan->batch, plan->width);
}

static void choose_strides(Plan *plan)
{
    const size_t lane = LINE / plan->itemsize;
    const size_t slack = plan->width % lane ? lane - 1 : 0; /* an unpadded row's last line goes beyond it */
    plan->phase = round_up((plan->segment + plan->cols.reach) * plan->width + slack, lane);
    plan->channel = plan->phase * plan->cols.in_step;
}

/* Cuts the columns, then the channels, until the source of a few rows fits the cache; or takes more rows. A band of
 * several rows repays adding up the dot products at its end. Returns -1 if offsets would not fit their type. */
static int choose_cuts(Plan *plan)
{
    const size_t least = plan->rows.backward ? 4 : 1;
    plan->places = place(&plan->cols, plan->cols.out - 1) - place(&plan->cols, 0) + 1;
    choose_width(plan);
    const size_t strip = ceil_div(STRIP_LINES * LINE, plan->width * plan->itemsize);
    const size_t n_in = plan->side->n_in;
    plan->band = smaller(least, plan->rows.out);
    plan->segment = plan->places;
    choose_strides(plan);
#define SOURCE(channels, band) (rows_of_band(plan, band) * (channels) * plan->channel * plan->itemsize)
    while (SOURCE(n_in, plan->band) > SOURCE_BYTES && plan->segment > strip) {
        plan->segment = round_up(ceil_div(plan->segment, 2), strip);
        choose_strides(plan);
    }
    plan->block = ceil_div(n_in, smaller(n_in, ceil_div(SOURCE(n_in, plan->band), SOURCE_BYTES)));
    while (plan->band < plan->rows.out && SOURCE(plan->block, plan->band + 1) <= SOURCE_BYTES)
        plan->band++;
    plan->source_rows = rows_of_band(plan, plan->band);
#undef SOURCE
    plan->segments = ceil_div(plan->places, plan->segment);
    plan->bands = ceil_div(plan->rows.out, plan->band);
    plan->blocks = ceil_div(n_in, plan->block);
    plan->row = plan->block * plan->channel;
    plan->lines = plan->cols.out_step * ceil_div(plan->segment * plan->width * plan->itemsize, LINE);
    return plan->source_rows * plan->row > UINT32_MAX ? -1 : 0;
}

static size_t cell_of(const Plan *plan, size_t out, size_t weight, size_t kw)
{
    const Side *side = plan->side;
    const size_t ky = (size_t)side->taps[weight] / kw, kx = (size_t)side->taps[weight] % kw;
    const size_t class = ky % plan->rows.out_step * plan->cols.out_step + kx % plan->cols.out_step;
    return ((size_t)side->channels[weight] / plan->block * side->n_out + out) * plan->classes + class;
}

/* Sorts the weights by cell, keeping their order within one. */
static int list_weights(Plan *plan, size_t kh, size_t kw)
{
    const Side *side = plan->side;
    const size_t n = (size_t)side->starts[side->n_out];
    size_t *tap = malloc(kh * kw * sizeof *tap);
    plan->classes = plan->rows.out_step * plan->cols.out_step;
    plan->cells = plan->blocks * side->n_out * plan->classes;
    plan->starts = calloc(plan->cells + 2, sizeof *plan->starts);
    plan->offsets = malloc((n + 1) * sizeof *plan->offsets);
    plan->order = malloc((n + 1) * sizeof *plan->order);
    if (!tap || !plan->starts || !plan->offsets || !plan->order) {
        free(tap);
        return -1;
    }
    for (size_t t = 0; t < kh * kw; t++) {
        const size_t ky = t / kw, kx = t % kw;
        tap[t] = (shift_of(&plan->rows, ky) * plan->rows.in_step + phase_of(&plan->rows, ky)) * plan->row +
                 phase_of(&plan->cols, kx) * plan->phase + shift_of(&plan->cols, kx) * plan->width;
    }
    uint32_t *ends = plan->starts + 1; /* the starts, until each has moved on to the next */
    for (size_t c = 0; c < side->n_out; c++)
        for (size_t k = (size_t)side->starts[c]; k < (size_t)side->starts[c + 1]; k++)
            ends[cell_of(plan, c, k, kw) + 1]++;
    for (size_t i = 0; i < plan->cells; i++)
        ends[i + 1] += ends[i];
    for (size_t c = 0; c < side->n_out; c++)
        for (size_t k = (size_t)side->starts[c]; k < (size_t)side->starts[c + 1]; k++) {
            const size_t at = ends[cell_of(plan, c, k, kw)]++;
            const size_t channel = (size_t)side->channels[k] % plan->block;
            plan->offsets[at] = (uint32_t)(channel * plan->channel + tap[side->taps[k]]);
            plan->order[at] = side->order[k];
        }
    free(tap);
    return 0;
}

/* ---- while a call runs ------------------------------------------------------------------------------------------ */

/* The columns of one class in the segment at hand. */
typedef struct {
    size_t first, count; /* output columns first, first + out_step, .. */
    size_t start;        /* the first one's place, within the segment */
    size_t line, lines;  /* of the row's lines */
} Run;

typedef struct {
    void *source, *values, *dots;
    void *out, *other;        /* [channel][row][line], where the strips cannot work on the tensors themselves */
    Run *runs;                /* of each class of columns */
    size_t *lead, *columns;   /* of each phase: columns of zeros, then columns of the source */
    size_t *at, *own_at;      /* of each line of a row: in the tensor, in out and other */
    const size_t *other_at, *out_at;
    size_t first, end;        /* output channels */
    size_t sample, samples;   /* of the tile */
    size_t place;             /* where the segment begins */
    int direct;               /* the tensors hold the lines whole */
} Work;

static void free_work(Work *work)
{
    void *all[] = {work->source, work->values, work->dots, work->out, work->other,
                   work->runs, work->lead, work->columns, work->at, work->own_at};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void *lines_of(size_t n_bytes) { return aligned_alloc(LINE, round_up(n_bytes + 1, LINE)); }

static int make_work(const Plan *plan, Work *work, int what)
{
    const Side *side = plan->side;
    const size_t n = (size_t)side->starts[side->n_out], lane = LINE / plan->itemsize;
    const int own = plan->blocks > 1 || plan->width % lane || plan->batch % plan->width;
    const size_t own_bytes = (work->end - work->first) * plan->band * plan->lines * LINE;
    size_t most = DOTS;
    for (size_t c = work->first; c < work->end; c++)
        most = larger(most, (size_t)(side->starts[c + 1] - side->starts[c]));
    work->source = lines_of((plan->source_rows * plan->row) * plan->itemsize);
    work->values = lines_of(what & WANT_OUT ? n * plan->itemsize : 0);
    work->dots = lines_of(what & WANT_GRAD ? (most + LINE) * LINE : 0);
    work->out = lines_of(own && what & WANT_OUT ? own_bytes : 0);
    work->other = lines_of(own && what & WANT_GRAD ? own_bytes : 0);
    work->runs = calloc(plan->cols.out_step, sizeof *work->runs);
    work->lead = calloc(plan->cols.in_step, sizeof *work->lead);
    work->columns = calloc(plan->cols.in_step, sizeof *work->columns);
    work->at = calloc(plan->lines, sizeof *work->at);
    work->own_at = calloc(plan->lines, sizeof *work->own_at);
    return work->source && work->values && work->dots && work->out && work->other && work->runs && work->lead &&
           work->columns && work->at && work->own_at ? 0 : -1;
}

/* The p >= from, < end for which low <= p * step + phase < high: the first and their number. */
static size_t range(size_t from, size_t end, size_t step, size_t phase, size_t low, size_t high, size_t *first)
{
    *first = larger(from, low > phase ? ceil_div(low - phase, step) : 0);
    const size_t past = smaller(end, high > phase ? ceil_div(high - phase, step) : 0);
    return past > *first ? past - *first : 0;
}

static void enter_segment(const Plan *plan, Work *work, size_t tile, size_t segment)
{
    const Axis *cols = &plan->cols;
    const size_t begin = place(cols, 0), lane = LINE / plan->itemsize;
    work->sample = tile * plan->width;
    work->samples = smaller(plan->width, plan->batch - work->sample);
    work->place = begin + segment * plan->segment;
    const size_t end = smaller(work->place + plan->segment, begin + plan->places);
    for (size_t f = 0; f < cols->in_step; f++) {
        size_t first;
        work->columns[f] = range(work->place, end + cols->reach, cols->in_step, f, cols->pad, cols->pad + cols->in,
                                 &first);
        work->lead[f] = work->columns[f] ? first - work->place : 0;
    }
    const int whole = plan->width % lane == 0 && work->samples == plan->width;
    work->direct = 1;
    for (size_t q = 0, line = 0; q < cols->out_step; q++) {
        Run *run = work->runs + q;
        size_t first;
        run->count = range(work->place, end, cols->out_step, q, cols->lead, cols->lead + cols->out, &first);
        run->first = run->count ? first * cols->out_step + q - cols->lead : 0;
        run->start = run->count ? first - work->place : 0;
        run->line = line;
        run->lines = ceil_div(run->count * plan->width, lane);
        for (size_t l = 0; l < run->lines; l++, line++) {
            work->at[line] = (run->first + l * lane / plan->width * cols->out_step) * plan->batch +
                             l * lane % plan->width;
            work->own_at[line] = line * lane;
        }
        if (!whole && (plan->width != plan->batch || cols->out_step > 1 || run->count * plan->width % lane))
            work->direct = 0;
    }
}

/* The part's share of the output channels, of about equal work. */
static void share_channels(const Side *side, size_t part, size_t parts, size_t *first, size_t *end)
{
    const size_t each = 4; /* a channel's own cost, in weights */
    const size_t total = (size_t)side->starts[side->n_out] + each * side->n_out;
    size_t bounds[2];
    for (size_t b = 0, c = 0; b < 2; b++) {
        const size_t target = total * (part + b) / parts;
        while (c < side->n_out && (size_t)side->starts[c] + each * c < target)
            c++;
        bounds[b] = c;
    }
    *first = bounds[0];
    *end = bounds[1];
}

#endif
