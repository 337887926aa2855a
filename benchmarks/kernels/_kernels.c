/* Products of a sparse (n_out, n_in) weight with dense activations, about as fast per active weight as a dense layer.
 *
 *     forward    Y = W X (+ bias)
 *     backward   dX = W^T G and the values' gradient dv = (G X^T on the pattern): either, or both in one pass
 *
 * Activations lie in *panels*, [tiles][features][width]: the batch is cut into tiles of `width` (16 to 64) samples, the
 * last padded with zeros, so that what one weight reads is a few whole cache lines and neighbouring features neighbour
 * in memory. (In [features][batch] a stride of 512 bytes lets few features occupy a cache.)
 *
 * A Side serves one direction: an output row adds up value * in[column]. The weight is cut into blocks whose input panel
 * stays in a near cache, columns are 16-bit offsets within it, and a block's rows are sorted by their number of weights:
 * a loop whose trip count changes at every short row costs a mispredicted branch each time, one that changes only
 * between runs of equal rows does not. Values are stored in the order of the backward side, which reads them and writes
 * their gradient in sequence; the forward gathers a block's values before use.
 *
 * Safety: a Structure is validated when built, owned here and never changes. Buffers come as (address, length) from
 * the Python border, which answers for the addresses; every length is checked here against the structure.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

/* ---- structure -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t weights; /* in each row of the run */
    uint32_t rows;
} Run;

typedef struct {
    size_t out, in;    /* first feature on either side */
    size_t weight, n_weights;
    size_t run, n_runs;
    size_t row;        /* of the block's rows in Side.rows */
    int first;         /* of its band: writes the output where the others add, and so lists its empty rows too */
} Block;

typedef struct {
    size_t n_out, n_in, out_block, in_block;
    size_t n_bands, *bands; /* a band: the blocks of the same outputs; (n_bands + 1) starts */
    Block *blocks;
    Run *runs;
    uint16_t *rows;         /* local to the block, as are the columns */
    uint16_t *columns;
    size_t max_weights;     /* of a block */
} Side;

enum { WANT_OUT = 1, WANT_GRAD = 2 };

typedef struct {
    const void *values, *in, *other, *bias;
    void *out, *grad;
    const int32_t *order; /* of the side's values among `values`, or NULL if they are in the side's own order */
    size_t batch, tiles, width, group;
    size_t band, band_end;
} Job;

/* ---- instantiations: element type x instruction set ------------------------------------------------------------- */

#define T float
#define LANES 4
#define MAX_VECTORS 4
#define NAME(x) x##_f32_base
#include "_kernels.inc"
#define T double
#define LANES 2
#define MAX_VECTORS 4
#define NAME(x) x##_f64_base
#include "_kernels.inc"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define T float
#define LANES 8
#define MAX_VECTORS 4
#define NAME(x) x##_f32_avx2
#include "_kernels.inc"
#define T double
#define LANES 4
#define MAX_VECTORS 4
#define NAME(x) x##_f64_avx2
#include "_kernels.inc"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif
#define T float
#define LANES 16
#define MAX_VECTORS 8
#define NAME(x) x##_f32_avx512
#include "_kernels.inc"
#define T double
#define LANES 8
#define MAX_VECTORS 8
#define NAME(x) x##_f64_avx512
#include "_kernels.inc"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

typedef struct {
    void (*product)(const Side *, const Job *, int what, void *scratch);
    void (*pack)(const void *src, void *dst, size_t batch, size_t features, size_t width);
    void (*unpack)(const void *src, void *dst, size_t batch, size_t features, size_t width);
} Kernels;

#define KERNELS(suffix) {product_##suffix, pack_batch_major_##suffix, unpack_batch_major_##suffix}

typedef struct {
    const char *name;
    Kernels f32, f64;
} Isa;

static const Isa isas[] = {
    {"portable", KERNELS(f32_base), KERNELS(f64_base)},
#if defined(__x86_64__)
    {"avx2", KERNELS(f32_avx2), KERNELS(f64_avx2)},
    {"avx512", KERNELS(f32_avx512), KERNELS(f64_avx512)},
#endif
};

static int best_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

static const Isa *isa = isas;

static const Kernels *kernels(Py_ssize_t itemsize) { return itemsize == 4 ? &isa->f32 : &isa->f64; }

/* ---- building a side -------------------------------------------------------------------------------------------- */

static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

/* The weight's coordinates in row-major order, as checked CSR. */
typedef struct {
    size_t n_out, n_in, n;
    const int32_t *starts, *columns;
} Csr;

static void free_side(Side *side)
{
    free(side->bands);
    free(side->blocks);
    free(side->runs);
    free(side->rows);
    free(side->columns);
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

/* order[i]: row-major index of the side's i-th weight. `transposed` swaps the roles of rows and columns. */
static int build_side(Side *side, const Csr *csr, int transposed, size_t out_block, size_t in_block, int32_t *order)
{
    side->n_out = transposed ? csr->n_in : csr->n_out;
    side->n_in = transposed ? csr->n_out : csr->n_in;
    side->out_block = out_block;
    side->in_block = in_block;
    side->n_bands = ceil_div(side->n_out, out_block);
    const Grid grid = {out_block, in_block, ceil_div(side->n_in, in_block)};
    const size_t n_blocks = side->n_bands * grid.n_in_blocks, n_cells = n_blocks * out_block;
    /* Rows of a block that share a count share a run: never more runs than cells in use. */
    const size_t listed = (n_cells < csr->n + side->n_out ? n_cells : csr->n + side->n_out) + 1;
    uint32_t *cells = calloc(n_cells, sizeof *cells);
    side->bands = calloc(side->n_bands + 1, sizeof *side->bands);
    side->blocks = calloc(n_blocks, sizeof *side->blocks);
    side->runs = malloc(listed * sizeof *side->runs);
    side->rows = malloc(listed * sizeof *side->rows);
    side->columns = malloc((csr->n + 1) * sizeof *side->columns);
    int failed = !cells || !side->bands || !side->blocks || !side->runs || !side->rows || !side->columns;

    for (size_t r = 0; r < csr->n_out && !failed; r++)
        for (int32_t k = csr->starts[r]; k < csr->starts[r + 1]; k++) {
            const size_t c = (size_t)csr->columns[k];
            cells[transposed ? cell_of(&grid, c, r) : cell_of(&grid, r, c)]++;
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

    for (size_t r = 0; r < csr->n_out && !failed; r++)
        for (int32_t k = csr->starts[r]; k < csr->starts[r + 1]; k++) {
            const size_t c = (size_t)csr->columns[k];
            const size_t pos = cells[transposed ? cell_of(&grid, c, r) : cell_of(&grid, r, c)]++;
            side->columns[pos] = (uint16_t)((transposed ? r : c) % in_block);
            order[pos] = (int32_t)k;
        }
    free(cells);
    return failed ? -1 : 0;
}

/* ---- the Python type -------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    size_t n;
    Side forward, backward;
    int32_t *order;   /* row-major index of each value */
    int32_t *gather;  /* index among the values of each of the forward side's weights */
} Structure;

/* A buffer argument: (address, number of elements), or None. */
typedef struct {
    void *at;
    Py_ssize_t n;
    int given;
} Buffer;

static int to_buffer(PyObject *object, void *result)
{
    Buffer *buffer = result;
    *buffer = (Buffer){NULL, 0, 0};
    if (object == Py_None)
        return 1;
    unsigned long long at;
    if (!PyTuple_Check(object) || !PyArg_ParseTuple(object, "Kn", &at, &buffer->n)) {
        PyErr_SetString(PyExc_TypeError, "a buffer is given as (address, elements) or None");
        return 0;
    }
    buffer->at = (void *)(uintptr_t)at;
    buffer->given = 1;
    return 1;
}

static int has(const Buffer *buffer, size_t n, const char *name)
{
    if (buffer->given && buffer->n >= 0 && (size_t)buffer->n == n && (buffer->at || !n))
        return 1;
    if (buffer->given)
        PyErr_Format(PyExc_ValueError, "%s needs %zu elements, got %zd", name, n, buffer->n);
    else
        PyErr_Format(PyExc_ValueError, "%s is needed", name);
    return 0;
}

static int is_csr(const Csr *csr)
{
    if (csr->starts[0] != 0 || (size_t)csr->starts[csr->n_out] != csr->n)
        return 0;
    /* All starts first: a column may only be read once its row is known to lie within the columns. */
    for (size_t r = 0; r < csr->n_out; r++)
        if (csr->starts[r] > csr->starts[r + 1])
            return 0;
    for (size_t r = 0; r < csr->n_out; r++) {
        int64_t before = -1;
        for (int32_t k = csr->starts[r]; k < csr->starts[r + 1]; before = csr->columns[k++])
            if (csr->columns[k] <= before || (size_t)csr->columns[k] >= csr->n_in)
                return 0;
    }
    return 1;
}

static int build(Structure *self, const Csr *csr, const size_t blocks[4])
{
    int32_t *forward_order = malloc((csr->n + 1) * sizeof *forward_order);
    int32_t *position = malloc((csr->n + 1) * sizeof *position); /* among the values, by row-major index */
    self->order = malloc((csr->n + 1) * sizeof *self->order);
    int failed = !forward_order || !position || !self->order ||
                 build_side(&self->forward, csr, 0, blocks[0], blocks[1], forward_order) ||
                 build_side(&self->backward, csr, 1, blocks[2], blocks[3], self->order);
    if (!failed) {
        for (size_t i = 0; i < csr->n; i++)
            position[self->order[i]] = (int32_t)i;
        for (size_t i = 0; i < csr->n; i++)
            forward_order[i] = position[forward_order[i]];
        self->gather = forward_order;
        forward_order = NULL;
    }
    free(forward_order);
    free(position);
    return failed ? -1 : 0;
}

static PyObject *structure_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_out", "n_in", "starts", "columns", "blocks", NULL};
    Py_ssize_t n_out, n_in, block[4];
    Buffer starts, columns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnO&O&(nnnn)", names, &n_out, &n_in, to_buffer, &starts, to_buffer,
                                     &columns, &block[0], &block[1], &block[2], &block[3]))
        return NULL;
    if (n_out < 1 || n_in < 1 || n_out > INT32_MAX - 1 || n_in > INT32_MAX || columns.n > INT32_MAX - 1)
        return PyErr_Format(PyExc_ValueError, "n_out and n_in must be in [1, 2**31 - 2]");
    size_t blocks[4];
    for (int i = 0; i < 4; i++) {
        if (block[i] < 16 || block[i] > 65536)
            return PyErr_Format(PyExc_ValueError, "block sizes must be in [16, 65536], got %zd", block[i]);
        const size_t features = (size_t)(i == 0 || i == 3 ? n_out : n_in);
        blocks[i] = (size_t)block[i] < features ? (size_t)block[i] : features;
    }
    if (!has(&starts, (size_t)n_out + 1, "starts") || !columns.given || !has(&columns, (size_t)columns.n, "columns"))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "columns are needed");
    const Csr csr = {(size_t)n_out, (size_t)n_in, (size_t)columns.n, starts.at, columns.at};
    Structure *self = (Structure *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->n = csr.n;
    int valid, failed = 0;
    Py_BEGIN_ALLOW_THREADS
    valid = is_csr(&csr);
    if (valid)
        failed = build(self, &csr, blocks);
    Py_END_ALLOW_THREADS
    if (valid && !failed)
        return (PyObject *)self;
    Py_DECREF(self);
    if (!valid)
        return PyErr_Format(PyExc_ValueError, "starts must rise from 0 to the number of columns, and a row's columns "
                                              "must rise strictly within [0, %zd)", n_in);
    return PyErr_NoMemory();
}

static void structure_dealloc(Structure *self)
{
    free_side(&self->forward);
    free_side(&self->backward);
    free(self->order);
    free(self->gather);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *structure_order(Structure *self, PyObject *args)
{
    Buffer order;
    if (!PyArg_ParseTuple(args, "O&", to_buffer, &order) || !has(&order, self->n, "order"))
        return NULL;
    int64_t *to = order.at;
    for (size_t i = 0; i < self->n; i++)
        to[i] = self->order[i];
    Py_RETURN_NONE;
}

typedef struct {
    Py_ssize_t itemsize, batch, width, part, parts;
} Call;

/* Fills the job's geometry, or returns -1 with an error set. */
static int plan_call(const Call *call, const Side *side, Job *job)
{
    if ((call->itemsize != 4 && call->itemsize != 8) || call->batch < 1 || call->width < 16 || call->width > 64 ||
        call->width % 16 || call->parts < 1 || call->part < 0 || call->part >= call->parts) {
        PyErr_Format(PyExc_ValueError, "itemsize %zd, batch %zd, width %zd, part %zd of %zd: itemsize must be 4 or 8, "
                     "batch positive, width 16, 32, 48 or 64, part within parts",
                     call->itemsize, call->batch, call->width, call->part, call->parts);
        return -1;
    }
    job->batch = (size_t)call->batch;
    job->width = (size_t)call->width;
    job->tiles = ceil_div(job->batch, job->width);
    job->band = side->n_bands * (size_t)call->part / (size_t)call->parts;
    job->band_end = side->n_bands * ((size_t)call->part + 1) / (size_t)call->parts;
    /* Outputs of a band that are visited once need not stay; those revisited by every block of the band should. */
    const size_t band_bytes = side->out_block * job->width * (size_t)call->itemsize;
    job->group = side->in_block >= side->n_in ? job->tiles : 1 + (384 << 10) / band_bytes;
    return 0;
}

/* Padding would hold the bias; every kernel promises zeros there, so that a padded sample adds to no gradient. */
static void clear_padding(const Side *side, const Job *job, size_t itemsize)
{
    const size_t used = job->batch - (job->tiles - 1) * job->width, pad = job->width - used;
    size_t end = job->band_end * side->out_block;
    end = end < side->n_out ? end : side->n_out;
    char *tile = (char *)job->out + (job->tiles - 1) * side->n_out * job->width * itemsize;
    for (size_t f = job->band * side->out_block; pad && f < end; f++)
        memset(tile + (f * job->width + used) * itemsize, 0, pad * itemsize);
}

static PyObject *structure_forward(Structure *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"itemsize", "batch", "width", "values", "x", "y", "bias", "part", "parts", NULL};
    const Side *side = &self->forward;
    Call call = {.parts = 1};
    Buffer values, x, y, bias = {0};
    Job job = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnnO&O&O&|O&nn", names, &call.itemsize, &call.batch, &call.width,
                                     to_buffer, &values, to_buffer, &x, to_buffer, &y, to_buffer, &bias, &call.part,
                                     &call.parts) ||
        plan_call(&call, side, &job) || !has(&values, self->n, "values") ||
        !has(&x, job.tiles * side->n_in * job.width, "x") || !has(&y, job.tiles * side->n_out * job.width, "y") ||
        (bias.given && !has(&bias, side->n_out, "bias")))
        return NULL;
    job.values = values.at;
    job.in = x.at;
    job.out = y.at;
    job.bias = bias.at;
    job.order = self->gather;
    void *scratch = malloc((side->max_weights + 1) * (size_t)call.itemsize);
    if (!scratch)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    kernels(call.itemsize)->product(side, &job, WANT_OUT, scratch);
    if (bias.given)
        clear_padding(side, &job, (size_t)call.itemsize);
    Py_END_ALLOW_THREADS
    free(scratch);
    Py_RETURN_NONE;
}

static PyObject *structure_backward(Structure *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"itemsize", "batch", "width", "g", "values", "x", "dx", "dv", "part", "parts", NULL};
    const Side *side = &self->backward;
    Call call = {.parts = 1};
    Buffer g, values, x, dx, dv;
    Job job = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnnO&O&O&O&O&|nn", names, &call.itemsize, &call.batch, &call.width,
                                     to_buffer, &g, to_buffer, &values, to_buffer, &x, to_buffer, &dx, to_buffer, &dv,
                                     &call.part, &call.parts) ||
        plan_call(&call, side, &job) || !has(&g, job.tiles * side->n_in * job.width, "g"))
        return NULL;
    const int what = (dx.given ? WANT_OUT : 0) | (dv.given ? WANT_GRAD : 0);
    const size_t n_x = job.tiles * side->n_out * job.width;
    if (dx.given && (!has(&values, self->n, "values") || !has(&dx, n_x, "dx")))
        return NULL;
    if (dv.given && (!has(&x, n_x, "x") || !has(&dv, self->n, "dv")))
        return NULL;
    if (!what)
        return PyErr_Format(PyExc_ValueError, "dx or dv is needed");
    job.in = g.at;
    job.values = dx.given ? values.at : NULL;
    job.other = x.at;
    job.out = dx.at;
    job.grad = dv.at;
    Py_BEGIN_ALLOW_THREADS
    kernels(call.itemsize)->product(side, &job, what, NULL);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef structure_methods[] = {
    {"order", (PyCFunction)structure_order, METH_VARARGS, "order(to): row-major index of each value, int64"},
    {"forward", (PyCFunction)(void (*)(void))structure_forward, METH_VARARGS | METH_KEYWORDS, "y = W x (+ bias)"},
    {"backward", (PyCFunction)(void (*)(void))structure_backward, METH_VARARGS | METH_KEYWORDS,
     "dx = W^T g and dv = (g x^T on the pattern), each if its buffer is given"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot structure_slots[] = {
    {Py_tp_doc, "The pattern of a sparse (n_out, n_in) weight, from int32 CSR; immutable."},
    {Py_tp_new, structure_new},
    {Py_tp_dealloc, structure_dealloc},
    {Py_tp_methods, structure_methods},
    {0, NULL},
};

static PyType_Spec structure_spec = {
    .name = "_kernels.Structure",
    .basicsize = sizeof(Structure),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = structure_slots,
};

/* ---- conversions and module ------------------------------------------------------------------------------------- */

/* [features][batch] <-> panels: lines copied whole. */
static void pack_feature_major(const char *src, char *dst, size_t batch, size_t features, size_t width, size_t itemsize)
{
    for (size_t b = 0; b < batch; b += width) {
        const size_t here = batch - b < width ? batch - b : width;
        for (size_t f = 0; f < features; f++, dst += width * itemsize) {
            memcpy(dst, src + (f * batch + b) * itemsize, here * itemsize);
            memset(dst + here * itemsize, 0, (width - here) * itemsize);
        }
    }
}

static void unpack_feature_major(const char *src, char *dst, size_t batch, size_t features, size_t width,
                                 size_t itemsize)
{
    for (size_t b = 0; b < batch; b += width) {
        const size_t here = batch - b < width ? batch - b : width;
        for (size_t f = 0; f < features; f++, src += width * itemsize)
            memcpy(dst + (f * batch + b) * itemsize, src, here * itemsize);
    }
}

static PyObject *convert(PyObject *args, int pack)
{
    Call call = {.parts = 1};
    Py_ssize_t features;
    int batch_major;
    Buffer from, to;
    Job job = {0};
    const Side none = {.out_block = 1};
    if (!PyArg_ParseTuple(args, "nnnnpO&O&", &call.itemsize, &call.batch, &call.width, &features, &batch_major,
                          to_buffer, &from, to_buffer, &to) ||
        plan_call(&call, &none, &job))
        return NULL;
    if (features < 1)
        return PyErr_Format(PyExc_ValueError, "features must be positive, got %zd", features);
    const size_t n = (size_t)features, plain = job.batch * n, panels = job.tiles * n * job.width;
    if (!has(&from, pack ? plain : panels, "source") || !has(&to, pack ? panels : plain, "target"))
        return NULL;
    const size_t itemsize = (size_t)call.itemsize;
    Py_BEGIN_ALLOW_THREADS
    if (batch_major)
        (pack ? kernels(call.itemsize)->pack : kernels(call.itemsize)->unpack)(from.at, to.at, job.batch, n, job.width);
    else
        (pack ? pack_feature_major : unpack_feature_major)(from.at, to.at, job.batch, n, job.width, itemsize);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *pack(PyObject *module, PyObject *args) { return convert(args, 1); }
static PyObject *unpack(PyObject *module, PyObject *args) { return convert(args, 0); }

static PyObject *use_isa(PyObject *module, PyObject *args)
{
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    for (int i = 0; i <= best_isa(); i++)
        if (!strcmp(isas[i].name, name)) {
            isa = &isas[i];
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "this processor has no %s kernels", name);
}

static PyObject *get_isa(PyObject *module, PyObject *none) { return PyUnicode_FromString(isa->name); }

static PyMethodDef functions[] = {
    {"pack", pack, METH_VARARGS, "pack(itemsize, batch, width, features, batch_major, source, target): into panels"},
    {"unpack", unpack, METH_VARARGS, "unpack(itemsize, batch, width, features, batch_major, source, target)"},
    {"isa", get_isa, METH_NOARGS, "the instruction set in use"},
    {"use_isa", use_isa, METH_VARARGS, "use_isa(name): portable, avx2 or avx512, for tests; the best is the default"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_doc = "Sparse x dense products; see the source.", .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__kernels(void)
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
