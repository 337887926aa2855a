/* What one call works with while it runs: its buffers, and the columns and samples at hand. */

#ifndef CONV_WORK_H
#define CONV_WORK_H

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
    const size_t lane = LINE / plan->itemsize;
    const int own = plan->blocks > 1 || plan->width % lane || plan->batch % plan->width;
    const size_t own_bytes = (work->end - work->first) * plan->band * plan->lines * LINE;
    size_t most = plan->group;
    for (size_t cell = 0; cell < plan->cells; cell += plan->classes)
        most = larger(most, plan->starts[cell + plan->classes] - plan->starts[cell]);
    work->source = lines_of((plan->source_rows * plan->row) * plan->itemsize);
    work->values = lines_of(what & WANT_OUT ? plan->entries * plan->itemsize : 0);
    work->dots = lines_of(what & WANT_GRAD ? (most + LINE) * LINE : 0);
    work->out = lines_of(own && what & WANT_OUT ? own_bytes : 0);
    work->other = lines_of(own && what & WANT_GRAD ? own_bytes : 0);
    work->runs = calloc(plan->col_classes, sizeof *work->runs);
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
    for (size_t q = 0, line = 0; q < plan->col_classes; q++) {
        Run *run = work->runs + q;
        const Zone whole_row = {.end = cols->out}, *zone = plan->in_place ? plan->col_zones.at + q : &whole_row;
        const size_t phase = plan->in_place ? 0 : q;
        size_t first;
        run->count = range(work->place, end, cols->out_step, phase, cols->lead + zone->first, cols->lead + zone->end,
                           &first);
        run->first = run->count ? first * cols->out_step + phase - cols->lead : 0;
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
