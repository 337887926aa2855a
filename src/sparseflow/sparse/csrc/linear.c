/* Products of a sparse (n_out, n_in) weight with dense activations, about as fast per active weight as a dense layer.
 *
 *     forward    Y = W X (+ bias)
 *     backward   dX = W^T G and the values' gradient dv = (G X^T on the pattern): either, or both in one pass
 *
 * Activations are feature-major, [features][batch]. Inside, the batch is cut into tiles of `width` (16 to 64) samples, so
 * that what one weight reads is a few whole cache lines. The operand that is gathered from is copied into *panels*,
 * [tiles][features][width], where the batch is large (a stride of 2 KB lets few features occupy a cache) or does not fill
 * its last tile (which is padded with zeros). The other operands are visited once per block and row, and stay where they
 * are.
 *
 * A Side serves one direction: an output row adds up value * in[column]. The weight is cut into blocks whose input panel
 * stays in a near cache, columns are 16-bit offsets within it, and a block's rows are sorted by their number of weights:
 * a loop whose trip count changes at every short row costs a mispredicted branch each time, one that changes only
 * between runs of equal rows does not.
 *
 * Values come in one order whatever the blocks: by input feature, then by output (the row-major order of W^T). A row of
 * the backward side finds its share of a block in one piece and leaves its gradient there; the forward takes a block's
 * values, input by input, to their slots before use: a sequential read, and writes that stay in the nearest cache.
 *
 * Safety: a Structure is validated when built, owned here and never changes. Buffers come as (address, length) from
 * the Python border, which answers for the addresses; every length is checked here against the structure.
 */

#include "border.h"
#include "pattern.h"

/* ---- structure -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t weights; /* in each row of the run */
    uint32_t rows;
} Run;

/* Values of one input's weights in a block: they stand together, since values are ordered by input. */
typedef struct {
    int32_t start;
    uint32_t n;
} Piece;

typedef struct {
    size_t out, in;    /* first feature on either side */
    size_t weight, n_weights;
    size_t piece, n_pieces;
    size_t run, n_runs;
    size_t row;        /* of the block's rows in Side.rows */
    int first;         /* of its band: writes the output where the others add, and so lists its empty rows too */
} Block;

typedef struct {
    size_t n_out, n_in, n_weights, out_block, in_block;
    size_t n_bands, *bands; /* a band: the blocks of the same outputs; (n_bands + 1) starts */
    Block *blocks;
    Run *runs;
    uint16_t *rows;         /* local to the block, as are the columns */
    uint16_t *columns;
    Piece *pieces;          /* forward: of each block's values, and where in the block each value belongs */
    uint16_t *slots;
    int32_t *starts;        /* backward: index among the values of each listed row's first weight in the block */
    size_t max_weights;     /* of a block */
} Side;

enum { WANT_OUT = 1, WANT_GRAD = 2 };

/* How far ahead a kernel looks: at columns of weights, rows, and pieces of values. The lists are so much longer. */
enum { AHEAD = 16, ROWS_AHEAD = 2, PIECES_AHEAD = 8 };

/* Where an operand lies: elements from one feature to the next, and from one tile to the next. */
typedef struct {
    void *at;
    size_t row, tile;
} Operand;

/* out (+ bias) = values * in; grad = in . other */
typedef struct {
    const void *values, *bias;
    Operand in, other, out;
    void *grad;
    int add;  /* to what grad holds already: not the first part of the batch */
    size_t tiles, width, group;
    size_t band, band_end;
} Job;

#define KERNEL_TEXT "linear.inc"
#include "each_isa.h"

typedef struct {
    void (*product)(const Side *, const Job *, int what, void *scratch);
    void (*turn)(const void *source, void *target, size_t rows, size_t cols);
    size_t (*at_once)(size_t width, int what);
} Kernels;

#define KERNELS(suffix) {product_##suffix, turn_##suffix, at_once_##suffix}

typedef struct {
    const char *name;
    Kernels f32, f64;
} Isa;

static const Isa isas[] = EVERY_ISA(KERNELS);

ISA_CHOICE(isas)

/* ---- building a side -------------------------------------------------------------------------------------------- */

/* The pattern by input feature: the outputs that each of them reaches, rising; checked. Its order is the values'. */
typedef struct {
    size_t n_out, n_in, n;
    const int32_t *starts, *outs;
} Csc;

static void free_side(Side *side)
{
    free(side->bands);
    free(side->blocks);
    free(side->runs);
    free(side->rows);
    free(side->columns);
    free(side->pieces);
    free(side->slots);
    free(side->starts);
}

/* Cells: one for every row of every block, block after block; block b's cells start at b * out_block. */
typedef struct {
    size_t out_block, in_block, n_in_blocks;
} Grid;

static INLINE size_t cell_of(const Grid *grid, size_t out, size_t in)
{
    return ((out / grid->out_block) * grid->n_in_blocks + in / grid->in_block) * grid->out_block +
           out % grid->out_block;
}

/* Sorts a block's rows by their number of weights and turns each cell's count into the position of its first weight. */
static int lay_out_block(Side *side, Block *block, uint32_t *cells, size_t n_rows, size_t *n_runs)
{
    uint32_t most = 0;
    for (size_t r = 0; r < n_rows; r++)
        most = cells[r] > most ? cells[r] : most;
    uint32_t *starts = calloc((size_t)most + 2, sizeof *starts); /* of each count's rows, among the block's */
    if (!starts)
        return -1;
    size_t skipped = 0;
    for (size_t r = 0; r < n_rows; r++) {
        if (cells[r] || block->first)
            starts[cells[r] + 1]++;
        else
            skipped++;
    }
    for (uint32_t c = 0; c <= most; c++) {
        if (starts[c + 1]) {
            side->runs[*n_runs] = (Run){c, starts[c + 1]};
            ++*n_runs;
            block->n_runs++;
        }
        starts[c + 1] += starts[c];
    }
    uint16_t *rows = side->rows + block->row;
    for (size_t r = 0; r < n_rows; r++)
        if (cells[r] || block->first)
            rows[starts[cells[r]]++] = (uint16_t)r;
    free(starts);
    size_t at = block->weight;
    for (size_t i = 0; i < n_rows - skipped; i++) {
        const uint32_t count = cells[rows[i]];
        cells[rows[i]] = (uint32_t)at;
        at += count;
    }
    block->n_weights = at - block->weight;
    return 0;
}

/* order[i]: index among the values of the side's i-th weight. The backward side swaps the roles of inputs and outputs. */
static int build_side(Side *side, const Csc *csc, int backward, size_t out_block, size_t in_block, int32_t *order)
{
    side->n_out = backward ? csc->n_in : csc->n_out;
    side->n_in = backward ? csc->n_out : csc->n_in;
    side->n_weights = csc->n;
    side->out_block = out_block;
    side->in_block = in_block;
    side->n_bands = ceil_div(side->n_out, out_block);
    const Grid grid = {out_block, in_block, ceil_div(side->n_in, in_block)};
    const size_t n_blocks = side->n_bands * grid.n_in_blocks, n_cells = n_blocks * out_block;
    /* Rows of a block that share a count share a run: never more runs than cells in use. */
    const size_t listed = n_cells < csc->n + side->n_out ? n_cells : csc->n + side->n_out;
    uint32_t *cells = calloc(n_cells, sizeof *cells);
    side->bands = calloc(side->n_bands + 1, sizeof *side->bands);
    side->blocks = calloc(n_blocks, sizeof *side->blocks);
    side->runs = malloc((listed + 1) * sizeof *side->runs);
    side->rows = calloc(listed + 2, sizeof *side->rows); /* two more than there are: rows look at the next ones */
    side->columns = calloc(csc->n + AHEAD, sizeof *side->columns);
    int failed = !cells || !side->bands || !side->blocks || !side->runs || !side->rows || !side->columns;

    for (size_t i = 0; i < csc->n_in && !failed; i++)
        for (int32_t k = csc->starts[i]; k < csc->starts[i + 1]; k++) {
            const size_t o = (size_t)csc->outs[k];
            cells[backward ? cell_of(&grid, i, o) : cell_of(&grid, o, i)]++;
        }

    size_t at = 0, n_runs = 0, row = 0;
    for (size_t b = 0; b < n_blocks && !failed; b++) {
        const size_t band = b / grid.n_in_blocks, i = b % grid.n_in_blocks, out = band * out_block;
        const size_t n_rows = side->n_out - out < out_block ? side->n_out - out : out_block;
        side->blocks[b] = (Block){.out = out, .in = i * in_block, .weight = at, .run = n_runs, .row = row,
                                  .first = i == 0};
        failed = lay_out_block(side, side->blocks + b, cells + b * out_block, n_rows, &n_runs);
        at += side->blocks[b].n_weights;
        for (size_t run = side->blocks[b].run; run < n_runs; run++)
            row += side->runs[run].rows;
        if (side->blocks[b].n_weights > side->max_weights)
            side->max_weights = side->blocks[b].n_weights;
        side->bands[band + 1] = b + 1;
    }

    for (size_t i = 0; i < csc->n_in && !failed; i++)
        for (int32_t k = csc->starts[i]; k < csc->starts[i + 1]; k++) {
            const size_t o = (size_t)csc->outs[k];
            const size_t pos = cells[backward ? cell_of(&grid, i, o) : cell_of(&grid, o, i)]++;
            side->columns[pos] = (uint16_t)((backward ? o : i) % in_block);
            order[pos] = k;
        }
    free(cells);
    return failed ? -1 : 0;
}

/* The forward side's pieces and slots, from its order of single weights. */
static int list_pieces(Side *side, const Csc *csc, const int32_t *order)
{
    const size_t n_in_blocks = ceil_div(side->n_in, side->in_block);
    int32_t *slot_of = malloc((csc->n + 1) * sizeof *slot_of); /* the inverse of order */
    size_t n_pieces = 0;
    for (int pass = 0; pass < 2 && slot_of; pass++) { /* count, then fill */
        for (size_t i = 0; i < csc->n_in; i++)
            for (int32_t k = csc->starts[i]; k < csc->starts[i + 1];) {
                const size_t band = (size_t)csc->outs[k] / side->out_block;
                Block *block = side->blocks + band * n_in_blocks + i / side->in_block;
                const int32_t start = k;
                while (k < csc->starts[i + 1] && (size_t)csc->outs[k] / side->out_block == band)
                    k++;
                if (pass)
                    side->pieces[block->piece + block->n_pieces] = (Piece){start, (uint32_t)(k - start)};
                block->n_pieces++;
            }
        if (pass)
            break;
        for (size_t b = 0; b < side->bands[side->n_bands]; b++) {
            side->blocks[b].piece = n_pieces;
            n_pieces += side->blocks[b].n_pieces;
            side->blocks[b].n_pieces = 0;
        }
        side->pieces = calloc(n_pieces + PIECES_AHEAD, sizeof *side->pieces);
        side->slots = malloc((csc->n + 1) * sizeof *side->slots);
        if (!side->pieces || !side->slots)
            break;
    }
    const int failed = !slot_of || !side->pieces || !side->slots;
    for (size_t i = 0; i < csc->n && !failed; i++)
        slot_of[order[i]] = (int32_t)i;
    for (size_t b = 0; b < side->bands[side->n_bands] && !failed; b++) {
        const Block *block = side->blocks + b;
        uint16_t *slot = side->slots + block->weight;
        for (const Piece *piece = side->pieces + block->piece, *end = piece + block->n_pieces; piece < end; piece++)
            for (uint32_t k = 0; k < piece->n; k++)
                *slot++ = (uint16_t)((size_t)slot_of[piece->start + (int32_t)k] - block->weight);
    }
    free(slot_of);
    return failed ? -1 : 0;
}

/* From the order of single weights to that of the listed rows, whose weights in a block stand together among the values. */
static int list_starts(Side *side, const int32_t *order)
{
    const Block *last = side->blocks + side->bands[side->n_bands] - 1;
    const size_t n_runs = last->run + last->n_runs;
    size_t n_rows = 0;
    for (size_t run = 0; run < n_runs; run++)
        n_rows += side->runs[run].rows;
    side->starts = calloc(n_rows + ROWS_AHEAD, sizeof *side->starts);
    if (!side->starts)
        return -1;
    size_t row = 0, at = 0;
    for (size_t run = 0; run < n_runs; run++)
        for (size_t r = 0; r < side->runs[run].rows; r++, at += side->runs[run].weights)
            side->starts[row++] = side->runs[run].weights ? order[at] : 0;
    return 0;
}

/* ---- the Python type -------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    size_t n;
    Side forward, backward;
} Structure;

static int build(Structure *self, const Csc *csc, const size_t blocks[4])
{
    int32_t *order = malloc((csc->n + 1) * sizeof *order);
    size_t out = blocks[0], in = blocks[1];
    int failed = !order;
    for (;;) {
        failed = failed || build_side(&self->forward, csc, 0, out, in, order);
        if (failed || self->forward.max_weights <= UINT16_MAX + 1)
            break;
        /* Slots have 16 bits, and a pattern may crowd into a few of its blocks. */
        free_side(&self->forward);
        self->forward = (Side){0};
        if (in > 128)
            in = ceil_div(in, 2);
        else
            out = ceil_div(out, 2);
    }
    failed = failed || list_pieces(&self->forward, csc, order) ||
             build_side(&self->backward, csc, 1, blocks[2], blocks[3], order) || list_starts(&self->backward, order);
    free(order);
    return failed ? -1 : 0;
}

static PyObject *structure_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_out", "n_in", "starts", "outs", "blocks", NULL};
    Py_ssize_t n_out, n_in, block[4];
    Buffer starts, outs;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnO&O&(nnnn)", names, &n_out, &n_in, to_buffer, &starts, to_buffer,
                                     &outs, &block[0], &block[1], &block[2], &block[3]))
        return NULL;
    if (n_out < 1 || n_in < 1 || n_out > INT32_MAX - 1 || n_in > INT32_MAX || outs.n > INT32_MAX - 1)
        return PyErr_Format(PyExc_ValueError, "n_out and n_in must be in [1, 2**31 - 2]");
    size_t blocks[4];
    for (int i = 0; i < 4; i++) {
        if (block[i] < 16 || block[i] > 65536)
            return PyErr_Format(PyExc_ValueError, "block sizes must be in [16, 65536], got %zd", block[i]);
        const size_t features = (size_t)(i == 0 || i == 3 ? n_out : n_in);
        blocks[i] = (size_t)block[i] < features ? (size_t)block[i] : features;
    }
    if (!has(&starts, (size_t)n_in + 1, "starts") || !has(&outs, outs.n < 0 ? 0 : (size_t)outs.n, "outs"))
        return NULL;
    const Csc csc = {(size_t)n_out, (size_t)n_in, (size_t)outs.n, starts.at, outs.at};
    Structure *self = (Structure *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->n = csc.n;
    int valid, failed = 0;
    Py_BEGIN_ALLOW_THREADS
    valid = is_pattern(csc.starts, csc.outs, csc.n_in, csc.n_out, csc.n);
    if (valid)
        failed = build(self, &csc, blocks);
    Py_END_ALLOW_THREADS
    if (valid && !failed)
        return (PyObject *)self;
    Py_DECREF(self);
    if (!valid)
        return PyErr_Format(PyExc_ValueError, "starts must rise from 0 to the number of outs, and an input's outs must "
                                              "rise strictly within [0, %zd)", n_out);
    return PyErr_NoMemory();
}

static void structure_dealloc(Structure *self)
{
    free_side(&self->forward);
    free_side(&self->backward);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

typedef struct {
    Py_ssize_t itemsize, batch, part, parts;
} Call;

/* One product: operands in [features][batch]; what is not wanted has no address. */
typedef struct {
    const void *values, *bias, *in, *other;
    void *out, *grad;
    int what;
} Product;

static int check_call(const Call *call)
{
    if ((call->itemsize == 4 || call->itemsize == 8) && call->batch >= 1 && call->parts >= 1 && call->part >= 0 &&
        call->part < call->parts)
        return 1;
    PyErr_Format(PyExc_ValueError, "itemsize %zd, batch %zd, part %zd of %zd: itemsize must be 4 or 8, batch positive, "
                                   "part within parts", call->itemsize, call->batch, call->part, call->parts);
    return 0;
}

/* Samples in a tile: the width that pads least, a tile's fixed cost counted as a few samples; ties to the wider. */
static size_t width_of(size_t batch)
{
    size_t best = 64;
    for (size_t width = 48; width >= 16; width -= 16)
        if (ceil_div(batch, width) * (width + 6) < ceil_div(batch, best) * (best + 6))
            best = width;
    return best;
}

/* Tiles [tile, end) of `features` rows of `batch` samples into panels, what lies past the batch filled with zeros. */
static void pack(const char *src, char *dst, size_t features, size_t batch, size_t width, size_t tile, size_t end,
                 size_t itemsize)
{
    for (; tile < end; tile++) {
        const size_t from = tile * width, here = batch - from < width ? batch - from : width;
        for (size_t f = 0; f < features; f++, dst += width * itemsize) {
            memcpy(dst, src + (f * batch + from) * itemsize, here * itemsize);
            memset(dst + here * itemsize, 0, (width - here) * itemsize);
        }
    }
}

static void *shifted(const void *at, size_t elements, size_t itemsize)
{
    return at ? (char *)at + elements * itemsize : NULL;
}

/* Up to this batch, and with fewer weights to each of its features, the gathered operand is read where it lies: the features
 * are near enough to each other that a copy costs more than it saves. So it always is where a pass reads the whole batch. */
enum { IN_PLACE = 128, REPAY_COPY = 64 };

/* Cuts the batch into tiles, brings the gathered operand into panels and runs the kernel: on the full tiles with the
 * other operands in place, on a last one that the batch does not fill with copies of theirs. -1 if memory is short. */
static int run_product(const Side *side, const Call *call, const Product *p)
{
    const Kernels *kernels = call->itemsize == 4 ? &isa->f32 : &isa->f64;
    const size_t item = (size_t)call->itemsize, batch = (size_t)call->batch, width = width_of(batch);
    const size_t full = batch / width, tiles = ceil_div(batch, width), used = batch % width;
    const size_t in_tile = side->n_in * width, out_tile = used ? side->n_out * width : 0;
    const int few = batch <= IN_PLACE && side->n_weights < REPAY_COPY * side->n_in;
    const int in_place = !used && (few || batch <= kernels->at_once(width, p->what));
    const size_t in_bytes = in_place ? 0 : tiles * in_tile * item, rest_bytes = out_tile * item;
    const size_t bytes = in_bytes + 2 * rest_bytes + (side->slots ? side->max_weights * item : 0);
    /* To whole cache lines: a load that straddles two costs both. */
    char *space = aligned_alloc(64, (bytes / 64 + 1) * 64);
    if (!space)
        return -1;
    char *panels = space, *rest_out = panels + in_bytes, *rest_other = rest_out + rest_bytes;
    void *scratch = rest_other + rest_bytes;
    if (!in_place)
        pack(p->in, panels, side->n_in, batch, width, 0, tiles, item);

    Job job = {.values = p->values, .bias = p->bias, .grad = p->grad, .width = width, .tiles = full};
    job.in = in_place ? (Operand){(void *)p->in, batch, width} : (Operand){panels, width, in_tile};
    job.other = (Operand){(void *)p->other, batch, width};
    job.out = (Operand){p->out, batch, width};
    job.band = side->n_bands * (size_t)call->part / (size_t)call->parts;
    job.band_end = side->n_bands * ((size_t)call->part + 1) / (size_t)call->parts;
    /* Outputs of a band that are visited once need not stay; those revisited by every block of the band should. */
    job.group = side->in_block >= side->n_in ? tiles : 1 + (384 << 10) / (side->out_block * width * item);
    if (full)
        kernels->product(side, &job, p->what, scratch);
    if (used) {
        if (p->other)
            pack(p->other, rest_other, side->n_out, batch, width, full, tiles, item);
        job.tiles = 1;
        job.add = full > 0;
        job.in.at = shifted(job.in.at, full * in_tile, item);
        job.other = (Operand){rest_other, width, out_tile};
        job.out = (Operand){rest_out, width, out_tile};
        kernels->product(side, &job, p->what, scratch);
        const size_t last = job.band_end * side->out_block < side->n_out ? job.band_end * side->out_block : side->n_out;
        for (size_t f = job.band * side->out_block; p->out && f < last; f++)
            memcpy(shifted(p->out, f * batch + full * width, item), rest_out + f * width * item, used * item);
    }
    free(space);
    return 0;
}

static PyObject *run_call(const Side *side, const Call *call, const Product *product)
{
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = run_product(side, call, product);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *structure_forward(Structure *self, PyObject *args)
{
    const Side *side = &self->forward;
    Call call;
    Buffer values, x, bias, y;
    if (!PyArg_ParseTuple(args, "nnO&O&O&O&nn", &call.itemsize, &call.batch, to_buffer, &values, to_buffer, &x,
                          to_buffer, &bias, to_buffer, &y, &call.part, &call.parts) ||
        !check_call(&call))
        return NULL;
    const size_t batch = (size_t)call.batch;
    if (!has(&values, self->n, "values") || !has(&x, side->n_in * batch, "x") || !has(&y, side->n_out * batch, "y") ||
        (bias.given && !has(&bias, side->n_out, "bias")))
        return NULL;
    const Product product = {.values = values.at, .in = x.at, .bias = bias.at, .out = y.at, .what = WANT_OUT};
    return run_call(side, &call, &product);
}

static PyObject *structure_backward(Structure *self, PyObject *args)
{
    const Side *side = &self->backward;
    Call call;
    Buffer g, values, x, dx, dv;
    if (!PyArg_ParseTuple(args, "nnO&O&O&O&O&nn", &call.itemsize, &call.batch, to_buffer, &g, to_buffer, &values,
                          to_buffer, &x, to_buffer, &dx, to_buffer, &dv, &call.part, &call.parts) ||
        !check_call(&call))
        return NULL;
    const size_t n_g = side->n_in * (size_t)call.batch, n_x = side->n_out * (size_t)call.batch;
    const int what = (dx.given ? WANT_OUT : 0) | (dv.given ? WANT_GRAD : 0);
    if (!has(&g, n_g, "g") || (dx.given && (!has(&values, self->n, "values") || !has(&dx, n_x, "dx"))) ||
        (dv.given && (!has(&x, n_x, "x") || !has(&dv, self->n, "dv"))))
        return NULL;
    if (!what)
        return PyErr_Format(PyExc_ValueError, "dx or dv is needed");
    const Product product = {.values = dx.given ? values.at : NULL, .in = g.at, .other = dv.given ? x.at : NULL,
                             .out = dx.at, .grad = dv.at, .what = what};
    return run_call(side, &call, &product);
}

static PyMethodDef structure_methods[] = {
    {"forward", (PyCFunction)structure_forward, METH_VARARGS,
     "forward(itemsize, batch, values, x, bias or None, y, part, parts): y = W x (+ bias)"},
    {"backward", (PyCFunction)structure_backward, METH_VARARGS,
     "backward(itemsize, batch, g, values, x, dx, dv, part, parts): dx = W^T g and dv = (g x^T on the pattern), each if "
     "its buffer is given; dx needs the values, dv needs x"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot structure_slots[] = {
    {Py_tp_doc, "The pattern of a sparse (n_out, n_in) weight: int32 starts and outputs by input feature; immutable."},
    {Py_tp_new, structure_new},
    {Py_tp_dealloc, structure_dealloc},
    {Py_tp_methods, structure_methods},
    {0, NULL},
};

static PyType_Spec structure_spec = {
    .name = "sparseflow.sparse._linear.Structure",
    .basicsize = sizeof(Structure),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = structure_slots,
};

/* ---- module ----------------------------------------------------------------------------------------------------- */

static PyObject *turn(PyObject *module, PyObject *args)
{
    Py_ssize_t itemsize, rows, cols;
    Buffer from, to;
    if (!PyArg_ParseTuple(args, "nnnO&O&", &itemsize, &rows, &cols, to_buffer, &from, to_buffer, &to))
        return NULL;
    if ((itemsize != 4 && itemsize != 8) || rows < 1 || cols < 1 || rows > PY_SSIZE_T_MAX / cols / itemsize)
        return PyErr_Format(PyExc_ValueError, "itemsize must be 4 or 8, rows and cols positive; got %zd, %zd x %zd",
                            itemsize, rows, cols);
    const size_t n = (size_t)rows * (size_t)cols;
    if (!has(&from, n, "source") || !has(&to, n, "target"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    (itemsize == 4 ? &isa->f32 : &isa->f64)->turn(from.at, to.at, (size_t)rows, (size_t)cols);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"turn", turn, METH_VARARGS, "turn(itemsize, rows, cols, source, target): the transpose of a matrix"},
    ISA_FUNCTIONS,
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "sparseflow.sparse._linear", .m_doc = "Sparse x dense products; see the source.", .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__linear(void)
{
    isa = &isas[best_isa()];
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = PyType_FromSpec(&structure_spec);
    if (!module || !type || PyModule_AddObject(module, "Structure", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
