/* Products of a sparse convolution weight (c_out, c_in, kh, kw) with dense activations.
 *
 *     forward    Y = conv(X, W) (+ bias)
 *     backward   dX and the values' gradient dv: either, or both in one pass
 *
 * Activations lie batch-innermost, X[c_in][H][W][N] and Y[c_out][Ho][Wo][N]. No im2col: each weight is one multiply-add
 * over a *strip* of the source, some columns of a row by some samples, at an offset known beforehand. The source is a
 * block packed with its zero padding into a scratch that stays in the second-level cache, or, where few weights share
 * it, the tensor itself. A strip of the output stays in registers over all its weights. In the backward product one
 * load of the output's gradient serves both the input's gradient and the weight's own dot product, whose lanes are
 * added up only once per band of rows.
 *
 * Values come in one order, sorted by (c_in, ky, kx, c_out). Work is shared between threads by outputs, never within a
 * sum, so that their number changes no bit.
 *
 * Safety: a ConvStructure is validated when built, owned here and never changes. Buffers come as (address, length) from
 * the Python border, which answers for the addresses; every length is checked here against structure and geometry.
 */

#include "border.h"
#include "pattern.h"
#include "conv_plan.h"
#include "conv_work.h"

typedef struct {
    const void *values, *source, *other, *bias;
    void *out, *grad;
    size_t unit, unit_end; /* bands, counted through the segments of the tiles */
} Job;

#define KERNEL_TEXT "conv.inc"
#include "each_isa.h"

typedef struct {
    void (*gather)(const Plan *, Work *, const Job *, int what);
} Kernels;

#define KERNELS(suffix) {gather_##suffix}

typedef struct {
    const char *name;
    Kernels f32, f64;
} Isa;

static const Isa isas[] = EVERY_ISA(KERNELS);

ISA_CHOICE(isas)

static const Kernels *kernels(size_t itemsize) { return itemsize == 4 ? &isa->f32 : &isa->f64; }

/* ---- structure -------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    size_t n, kh, kw;
    Side forward, backward;
} Structure;

static int make_side(Side *side, size_t n_out, size_t n_in, size_t n)
{
    side->n_out = n_out;
    side->n_in = n_in;
    side->starts = calloc(n_out + 2, sizeof *side->starts);
    side->channels = malloc((n + 1) * sizeof *side->channels);
    side->taps = malloc((n + 1) * sizeof *side->taps);
    side->order = malloc((n + 1) * sizeof *side->order);
    return side->starts && side->channels && side->taps && side->order ? 0 : -1;
}

static void free_side(Side *side)
{
    free(side->starts);
    free(side->channels);
    free(side->taps);
    free(side->order);
}

static int build(Structure *self, const int32_t *starts, const int32_t *outs, size_t c_out, size_t c_in)
{
    const size_t taps = self->kh * self->kw;
    Side *forward = &self->forward, *backward = &self->backward;
    if (make_side(forward, c_out, c_in, self->n) || make_side(backward, c_in, c_out, self->n))
        return -1;
    int32_t *ends = forward->starts + 1; /* the starts, until each has moved on to the next */
    for (size_t k = 0; k < self->n; k++)
        ends[outs[k] + 1]++;
    for (size_t o = 0; o < c_out; o++)
        ends[o + 1] += ends[o];
    for (size_t column = 0; column < c_in * taps; column++)
        for (int32_t k = starts[column]; k < starts[column + 1]; k++) {
            const int32_t at = ends[outs[k]]++;
            forward->channels[at] = (int32_t)(column / taps);
            forward->taps[at] = backward->taps[k] = (int32_t)(column % taps);
            forward->order[at] = backward->order[k] = k;
            backward->channels[k] = outs[k];
        }
    for (size_t i = 0; i <= c_in; i++)
        backward->starts[i] = starts[i * taps];
    return 0;
}

static PyObject *structure_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"c_out", "c_in", "kh", "kw", "starts", "outs", NULL};
    Py_ssize_t c_out, c_in, kh, kw, columns;
    Buffer starts, outs;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnnnO&O&", names, &c_out, &c_in, &kh, &kw, to_buffer, &starts,
                                     to_buffer, &outs))
        return NULL;
    if (c_out < 1 || c_in < 1 || kh < 1 || kw < 1 || c_out > INT32_MAX - 1 || outs.n > INT32_MAX - 1 ||
        __builtin_mul_overflow(kh, kw, &columns) || __builtin_mul_overflow(columns, c_in, &columns) ||
        columns > INT32_MAX - 1)
        return PyErr_Format(PyExc_ValueError, "c_out, c_in, kh and kw must be positive, c_out and c_in * kh * kw below "
                                              "2**31 - 1");
    if (!has(&starts, (size_t)columns + 1, "starts") || !has(&outs, outs.n < 0 ? 0 : (size_t)outs.n, "outs"))
        return NULL;
    Structure *self = (Structure *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->n = (size_t)outs.n;
    self->kh = (size_t)kh;
    self->kw = (size_t)kw;
    int valid, failed = 0;
    Py_BEGIN_ALLOW_THREADS
    valid = is_pattern(starts.at, outs.at, (size_t)columns, (size_t)c_out, self->n);
    if (valid)
        failed = build(self, starts.at, outs.at, (size_t)c_out, (size_t)c_in);
    Py_END_ALLOW_THREADS
    if (valid && !failed)
        return (PyObject *)self;
    Py_DECREF(self);
    if (!valid)
        return PyErr_Format(PyExc_ValueError, "starts must rise from 0 to the number of outs, and a column's outs must "
                                              "rise strictly within [0, %zd)", c_out);
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

/* ---- calls ------------------------------------------------------------------------------------------------------ */

typedef struct {
    Py_ssize_t itemsize, size[3], stride[2], pad[2], part, parts; /* size: batch, height, width of the input */
} Call;

static int product(const size_t *factors, int n, size_t *result)
{
    *result = 1;
    for (int i = 0; i < n; i++)
        if (__builtin_mul_overflow(*result, factors[i], result))
            return -1;
    return *result > PY_SSIZE_T_MAX / 16 ? -1 : 0;
}

/* Fills the plan's geometry and the activations' lengths, or returns -1 with an error set. */
static int check_call(const Structure *self, const Call *call, int backward, Plan *plan, size_t *n_x, size_t *n_y)
{
    const size_t kernel[2] = {self->kh, self->kw};
    size_t out[2];
    int fits = call->itemsize == 4 || call->itemsize == 8;
    fits = fits && call->size[0] >= 1 && call->parts >= 1 && call->part >= 0 && call->part < call->parts;
    for (int i = 0; i < 2; i++) {
        fits = fits && call->size[i + 1] >= 1 && call->stride[i] >= 1 && call->pad[i] >= 0 &&
               call->pad[i] <= INT32_MAX && call->size[i + 1] <= INT32_MAX && call->stride[i] <= INT32_MAX;
        const size_t padded = fits ? (size_t)call->size[i + 1] + 2 * (size_t)call->pad[i] : 0;
        fits = fits && padded >= kernel[i];
        out[i] = fits ? (padded - kernel[i]) / (size_t)call->stride[i] + 1 : 0;
    }
    const size_t batch = (size_t)call->size[0], height = (size_t)call->size[1], width = (size_t)call->size[2];
    if (!fits || product((size_t[]){self->forward.n_in, height, width, batch}, 4, n_x) ||
        product((size_t[]){self->forward.n_out, out[0], out[1], batch}, 4, n_y)) {
        PyErr_Format(PyExc_ValueError, "itemsize %zd, batch %zd, size (%zd, %zd), stride (%zd, %zd), padding (%zd, "
                     "%zd), part %zd of %zd: itemsize must be 4 or 8, the sizes and strides positive, the padded input "
                     "no smaller than the kernel, part within parts", call->itemsize, call->size[0], call->size[1],
                     call->size[2], call->stride[0], call->stride[1], call->pad[0], call->pad[1], call->part,
                     call->parts);
        return -1;
    }
    plan->side = backward ? &self->backward : &self->forward;
    plan->batch = batch;
    plan->itemsize = (size_t)call->itemsize;
    plan->rows = make_axis(backward, height, out[0], self->kh, (size_t)call->stride[0], (size_t)call->pad[0]);
    plan->cols = make_axis(backward, width, out[1], self->kw, (size_t)call->stride[1], (size_t)call->pad[1]);
    return 0;
}

/* Runs a checked call. The forward is shared by positions, each part packing what it reads; the backward by channels,
 * since the sums of the values' gradient go over all positions. */
static int run(const Structure *self, const Call *call, int backward, int what, Plan *plan, Job *job)
{
    const size_t part = (size_t)call->part, parts = (size_t)call->parts;
    const Side *side = plan->side;
    Work work = {.end = side->n_out};
    int failed = choose_cuts(plan) || list_weights(plan, self->kh, self->kw);
    job->unit_end = plan->tiles * plan->segments * plan->bands;
    if (backward) {
        share_channels(side, part, parts, &work.first, &work.end);
        if (what & WANT_GRAD && self->n)
            memset((char *)job->grad + (size_t)side->starts[work.first] * plan->itemsize, 0,
                   (size_t)(side->starts[work.end] - side->starts[work.first]) * plan->itemsize);
    } else {
        job->unit = job->unit_end * part / parts;
        job->unit_end = job->unit_end * (part + 1) / parts;
    }
    const int idle = work.first == work.end || job->unit == job->unit_end;
    failed = failed || make_work(plan, &work, what);
    if (!failed && !idle)
        kernels(plan->itemsize)->gather(plan, &work, job, what);
    free_work(&work);
    free(plan->starts);
    free(plan->offsets);
    free(plan->order);
    return failed;
}

static PyObject *structure_forward(Structure *self, PyObject *args)
{
    Call call;
    Buffer values, x, bias, y;
    Plan plan = {0};
    size_t n_x, n_y;
    if (!PyArg_ParseTuple(args, "n(nnn)(nn)(nn)O&O&O&O&nn", &call.itemsize, &call.size[0], &call.size[1],
                          &call.size[2], &call.stride[0], &call.stride[1], &call.pad[0], &call.pad[1], to_buffer,
                          &values, to_buffer, &x, to_buffer, &bias, to_buffer, &y, &call.part, &call.parts) ||
        check_call(self, &call, 0, &plan, &n_x, &n_y) || !has(&values, self->n, "values") || !has(&x, n_x, "x") ||
        !has(&y, n_y, "y") || (bias.given && !has(&bias, self->forward.n_out, "bias")))
        return NULL;
    Job job = {.values = values.at, .source = x.at, .bias = bias.at, .out = y.at};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = run(self, &call, 0, WANT_OUT, &plan, &job);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *structure_backward(Structure *self, PyObject *args)
{
    Call call;
    Buffer g, values, x, dx, dv;
    Plan plan = {0};
    size_t n_x, n_y;
    if (!PyArg_ParseTuple(args, "n(nnn)(nn)(nn)O&O&O&O&O&nn", &call.itemsize, &call.size[0], &call.size[1],
                          &call.size[2], &call.stride[0], &call.stride[1], &call.pad[0], &call.pad[1], to_buffer, &g,
                          to_buffer, &values, to_buffer, &x, to_buffer, &dx, to_buffer, &dv, &call.part,
                          &call.parts) ||
        check_call(self, &call, 1, &plan, &n_x, &n_y) || !has(&g, n_y, "g"))
        return NULL;
    const int what = (dx.given ? WANT_OUT : 0) | (dv.given ? WANT_GRAD : 0);
    if (dx.given && (!has(&values, self->n, "values") || !has(&dx, n_x, "dx")))
        return NULL;
    if (dv.given && (!has(&x, n_x, "x") || !has(&dv, self->n, "dv")))
        return NULL;
    if (!what)
        return PyErr_Format(PyExc_ValueError, "dx or dv is needed");
    Job job = {.values = dx.given ? values.at : NULL, .source = g.at, .other = x.at, .out = dx.at, .grad = dv.at};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = run(self, &call, 1, what, &plan, &job);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef structure_methods[] = {
    {"forward", (PyCFunction)structure_forward, METH_VARARGS,
     "forward(itemsize, (batch, height, width) of x, stride, padding, values, x, bias or None, y, part, parts): "
     "y = conv(x, W) (+ bias)"},
    {"backward", (PyCFunction)structure_backward, METH_VARARGS,
     "backward(itemsize, (batch, height, width) of x, stride, padding, g, values, x, dx, dv, part, parts): the gradients "
     "of x and of the values, each if its buffer is given; dx needs the values, dv needs x"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot structure_slots[] = {
    {Py_tp_doc, "The pattern of a sparse (c_out, c_in, kh, kw) weight; immutable. starts and outs, both int32, list "
                "the output channels of each (c_in, ky, kx)."},
    {Py_tp_new, structure_new},
    {Py_tp_dealloc, structure_dealloc},
    {Py_tp_methods, structure_methods},
    {0, NULL},
};

static PyType_Spec structure_spec = {
    .name = "sparseflow.sparse._conv.ConvStructure",
    .basicsize = sizeof(Structure),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = structure_slots,
};

/* ---- module ----------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    ISA_FUNCTIONS,
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "sparseflow.sparse._conv", .m_doc = "Sparse convolutions; see the source.", .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__conv(void)
{
    isa = &isas[best_isa()];
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = PyType_FromSpec(&structure_spec);
    if (!module || !type || PyModule_AddObject(module, "ConvStructure", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
