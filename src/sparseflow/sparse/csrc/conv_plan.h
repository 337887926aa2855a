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
    USES = 16,             /* of a source position, up to which reading it where it lies is faster than packing it */
    ROW_LINES = 16,        /* and what a row should have for that */
    SMALL_REACH = 2,       /* of the kernels whose borders make few enough classes for that */
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

/* Output positions [first, end) along an axis whose steps are 1, all of whose taps of shifts [low, high) fall on the
 * source and whose others fall beside it. */
typedef struct {
    size_t first, end, low, high;
    size_t from; /* where the first one's first such tap reads */
} Zone;

typedef struct {
    size_t n;
    Zone at[2 * SMALL_REACH + 3];
} Zones;

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
    int in_place;                    /* the source is read where it lies, not packed */
    Zones row_zones, col_zones;      /* then: the classes of output rows and columns */
    size_t row_classes, col_classes; /* output rows and columns to which the same taps apply */
    size_t classes, cells;           /* classes: of both together */
    size_t entries;                  /* weights, each counted once for each class it applies to */
    size_t group;                    /* of entries whose dot products are in progress at once */
    uint32_t *starts;                /* of the weights of [block][output channel][class]; cells + 1 */
    uint32_t *offsets;               /* of each entry: where it reads, from where its position begins to read */
    int32_t *order;                  /* of each entry: its weight's index among the values */
} Plan;

/* Whether an output whose lines are written once goes past the caches: they would not keep it until it is read, and a
 * line that is not written past them is fetched first. */
static int streams(const Plan *plan, const void *out)
{
    enum { LARGE = 4 << 20 };
    return (uintptr_t)out % LINE == 0 && plan->batch * plan->itemsize % LINE == 0 &&
           plan->side->n_out * plan->rows.out * plan->cols.out * plan->batch * plan->itemsize >= LARGE;
}

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

static Zones make_zones(const Axis *axis)
{
    Zones zones = {0};
    for (size_t o = 0; o < axis->out; o++) {
        const size_t at = place(axis, o), low = axis->pad > at ? axis->pad - at : 0;
        const size_t past = axis->pad + axis->in > at ? axis->pad + axis->in - at : 0;
        Zone zone = {o, o + 1, low, smaller(past, axis->reach + 1), at + low - axis->pad};
        if (zone.low >= zone.high)
            zone.low = zone.high = zone.from = 0; /* all taps fall beside it */
        Zone *last = zones.at + zones.n - 1;
        if (zones.n && last->low == zone.low && last->high == zone.high)
            last->end++;
        else
            zones.at[zones.n++] = zone;
    }
    return zones;
}

static const Zone *zone_of(const Zones *zones, size_t out)
{
    const Zone *zone = zones->at;
    while (out >= zone->end)
        zone++;
    return zone;
}

static int in_zone(const Zone *zone, size_t shift) { return zone->low <= shift && shift < zone->high; }

/* Few weights on a source position do not repay packing it. Where it lies, a row of columns and samples is one stretch
 * of memory, in which a tap is a fixed step; at the borders fewer taps apply, which makes them classes of their own. */
static int can_stay(const Plan *plan)
{
    const Axis *rows = &plan->rows, *cols = &plan->cols;
    const size_t n = (size_t)plan->side->starts[plan->side->n_out], lane = LINE / plan->itemsize;
    return rows->in_step == 1 && rows->out_step == 1 && cols->in_step == 1 && cols->out_step == 1 &&
           rows->reach <= SMALL_REACH && cols->reach <= SMALL_REACH && plan->batch % lane == 0 &&
           cols->out * plan->batch >= ROW_LINES * lane && n <= USES * plan->side->n_in &&
           plan->side->n_in * rows->in * cols->in * plan->batch <= UINT32_MAX;
}

/* Bands of several rows repay adding up the dot products; without these, single rows share the work out evenly. */
static void stay(Plan *plan)
{
    const Axis *rows = &plan->rows, *cols = &plan->cols;
    plan->in_place = 1;
    plan->row_zones = make_zones(rows);
    plan->col_zones = make_zones(cols);
    plan->row_classes = plan->row_zones.n;
    plan->col_classes = plan->col_zones.n;
    plan->width = plan->batch;
    plan->tiles = plan->blocks = plan->segments = 1;
    plan->segment = plan->places;
    plan->block = plan->side->n_in;
    plan->channel = rows->in * cols->in * plan->batch;
    plan->band = smaller(rows->backward ? 8 : 1, rows->out);
    plan->bands = ceil_div(rows->out, plan->band);
    plan->lines = cols->out * plan->batch * plan->itemsize / LINE;
}

/* Cuts the columns, then the channels, until the source of a few rows fits the cache; or takes more rows. A band of
 * several rows repays adding up the dot products at its end. Returns -1 if offsets would not fit their type. */
static int choose_cuts(Plan *plan)
{
    const size_t least = plan->rows.backward ? 4 : 1;
    plan->places = place(&plan->cols, plan->cols.out - 1) - place(&plan->cols, 0) + 1;
    if (can_stay(plan)) {
        stay(plan);
        return 0;
    }
    plan->row_classes = plan->rows.out_step;
    plan->col_classes = plan->cols.out_step;
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

/* The classes that a tap applies to; returns their number. */
static size_t classes_of_tap(const Plan *plan, size_t ky, size_t kx, size_t *classes)
{
    if (!plan->in_place) {
        classes[0] = ky % plan->row_classes * plan->col_classes + kx % plan->col_classes;
        return 1;
    }
    size_t n = 0;
    for (size_t class = 0; class < plan->classes; class++)
        if (in_zone(plan->row_zones.at + class / plan->col_classes, shift_of(&plan->rows, ky)) &&
            in_zone(plan->col_zones.at + class % plan->col_classes, shift_of(&plan->cols, kx)))
            classes[n++] = class;
    return n;
}

/* Where a tap reads, from where the outputs of a class begin to read. */
static size_t offset_of_tap(const Plan *plan, size_t class, size_t ky, size_t kx)
{
    const Axis *rows = &plan->rows, *cols = &plan->cols;
    const size_t row = shift_of(rows, ky), col = shift_of(cols, kx);
    if (plan->in_place)
        return ((row - plan->row_zones.at[class / plan->col_classes].low) * cols->in + col -
                plan->col_zones.at[class % plan->col_classes].low) * plan->batch;
    return (row * rows->in_step + phase_of(rows, ky)) * plan->row + phase_of(cols, kx) * plan->phase +
           col * plan->width;
}

/* The next entry of each cell moves on, once for each weight and class that it applies to; `list` writes entries. */
static void count_entries(Plan *plan, size_t kw, const size_t *n_classes, const size_t *classes, size_t most,
                          uint32_t *next, int list)
{
    const Side *side = plan->side;
    for (size_t c = 0; c < side->n_out; c++)
        for (size_t k = (size_t)side->starts[c]; k < (size_t)side->starts[c + 1]; k++) {
            const size_t tap = (size_t)side->taps[k], channel = (size_t)side->channels[k];
            uint32_t *of_channel = next + (channel / plan->block * side->n_out + c) * plan->classes;
            for (size_t i = 0; i < n_classes[tap]; i++) {
                const size_t class = classes[tap * most + i], at = of_channel[class]++;
                if (!list)
                    continue;
                plan->offsets[at] = (uint32_t)(channel % plan->block * plan->channel +
                                               offset_of_tap(plan, class, tap / kw, tap % kw));
                plan->order[at] = side->order[k];
            }
        }
}

/* Sorts the weights by cell, keeping their order within one; a weight enters each cell of a class it applies to. */
static int list_weights(Plan *plan, size_t kh, size_t kw)
{
    const size_t taps = kh * kw, n = (size_t)plan->side->starts[plan->side->n_out];
    plan->classes = plan->row_classes * plan->col_classes;
    plan->cells = plan->blocks * plan->side->n_out * plan->classes;
    const size_t most = plan->in_place ? plan->classes : 1;
    size_t *n_classes = malloc(taps * sizeof *n_classes), *classes = malloc(taps * most * sizeof *classes);
    plan->starts = calloc(plan->cells + 2, sizeof *plan->starts);
    plan->offsets = malloc((n * most + 1) * sizeof *plan->offsets);
    plan->order = malloc((n * most + 1) * sizeof *plan->order);
    const int failed = !n_classes || !classes || !plan->starts || !plan->offsets || !plan->order;
    if (!failed) {
        for (size_t t = 0; t < taps; t++)
            n_classes[t] = classes_of_tap(plan, t / kw, t % kw, classes + t * most);
        uint32_t *ends = plan->starts + 1; /* the starts, until each has moved on to the next */
        count_entries(plan, kw, n_classes, classes, most, ends + 1, 0);
        for (size_t i = 0; i < plan->cells; i++)
            ends[i + 1] += ends[i];
        count_entries(plan, kw, n_classes, classes, most, ends, 1);
        plan->entries = plan->starts[plan->cells];
        plan->group = n ? DOTS * plan->entries / n : DOTS;
    }
    free(n_classes);
    free(classes);
    return failed ? -1 : 0;
}

#endif
