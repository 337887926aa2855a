/* Batch normalisation in training where each channel's samples are contiguous, [channels][samples]: what torch does fast
 * only with the channels last or the batch first. */

#include "border.h"

#define KERNEL_TEXT "norm.inc"
#include "each_isa.h"

typedef struct {
    void (*forward)(const void *x, void *y, size_t n, double weight, double bias, double eps, double *mean, double *var);
    void (*backward)(const void *g, const void *x, void *dx, size_t n, double weight, double eps, double mean,
                     double var, double *dweight, double *dbias);
} Kernels;

#define KERNELS(suffix) {norm_forward_##suffix, norm_backward_##suffix}

typedef struct {
    const char *name;
    Kernels f32, f64;
} Isa;

static const Isa isas[] = EVERY_ISA(KERNELS);

ISA_CHOICE(isas)

typedef struct {
    Py_ssize_t itemsize, channels, samples, part, parts;
} Call;

static int check_call(const Call *call)
{
    if ((call->itemsize == 4 || call->itemsize == 8) && call->channels >= 1 && call->samples >= 1 && call->parts >= 1 &&
        call->part >= 0 && call->part < call->parts && call->channels <= PY_SSIZE_T_MAX / call->samples)
        return 1;
    PyErr_Format(PyExc_ValueError, "itemsize %zd, channels %zd, samples %zd, part %zd of %zd: itemsize must be 4 or 8, "
                                   "channels and samples positive, part within parts",
                 call->itemsize, call->channels, call->samples, call->part, call->parts);
    return 0;
}

static double at(const void *values, size_t i, size_t itemsize, double otherwise)
{
    return !values ? otherwise : itemsize == 4 ? ((const float *)values)[i] : ((const double *)values)[i];
}

static PyObject *forward(PyObject *module, PyObject *args)
{
    Call call;
    double eps;
    Buffer x, weight, bias, y, mean, var;
    if (!PyArg_ParseTuple(args, "nnndO&O&O&O&O&O&nn", &call.itemsize, &call.channels, &call.samples, &eps, to_buffer, &x,
                          to_buffer, &weight, to_buffer, &bias, to_buffer, &y, to_buffer, &mean, to_buffer, &var,
                          &call.part, &call.parts) ||
        !check_call(&call))
        return NULL;
    const size_t channels = (size_t)call.channels, n = (size_t)call.samples, item = (size_t)call.itemsize;
    if (!has(&x, channels * n, "x") || !has(&y, channels * n, "y") || !has(&mean, channels, "mean") ||
        !has(&var, channels, "var") || (weight.given && !has(&weight, channels, "weight")) ||
        (bias.given && !has(&bias, channels, "bias")))
        return NULL;
    const Kernels *kernels = item == 4 ? &isa->f32 : &isa->f64;
    Py_BEGIN_ALLOW_THREADS
    const size_t end = channels * ((size_t)call.part + 1) / (size_t)call.parts;
    for (size_t c = channels * (size_t)call.part / (size_t)call.parts; c < end; c++)
        kernels->forward((char *)x.at + c * n * item, (char *)y.at + c * n * item, n, at(weight.at, c, item, 1),
                         at(bias.at, c, item, 0), eps, (double *)mean.at + c, (double *)var.at + c);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *backward(PyObject *module, PyObject *args)
{
    Call call;
    double eps;
    Buffer g, x, weight, mean, var, dx, dweight, dbias;
    if (!PyArg_ParseTuple(args, "nnndO&O&O&O&O&O&O&O&nn", &call.itemsize, &call.channels, &call.samples, &eps, to_buffer,
                          &g, to_buffer, &x, to_buffer, &weight, to_buffer, &mean, to_buffer, &var, to_buffer, &dx,
                          to_buffer, &dweight, to_buffer, &dbias, &call.part, &call.parts) ||
        !check_call(&call))
        return NULL;
    const size_t channels = (size_t)call.channels, n = (size_t)call.samples, item = (size_t)call.itemsize;
    if (!has(&g, channels * n, "g") || !has(&x, channels * n, "x") || !has(&mean, channels, "mean") ||
        !has(&var, channels, "var") || !has(&dweight, channels, "dweight") || !has(&dbias, channels, "dbias") ||
        (weight.given && !has(&weight, channels, "weight")) || (dx.given && !has(&dx, channels * n, "dx")))
        return NULL;
    const Kernels *kernels = item == 4 ? &isa->f32 : &isa->f64;
    Py_BEGIN_ALLOW_THREADS
    const size_t end = channels * ((size_t)call.part + 1) / (size_t)call.parts;
    for (size_t c = channels * (size_t)call.part / (size_t)call.parts; c < end; c++)
        kernels->backward((char *)g.at + c * n * item, (char *)x.at + c * n * item,
                          dx.given ? (char *)dx.at + c * n * item : NULL, n, at(weight.at, c, item, 1), eps,
                          ((double *)mean.at)[c], ((double *)var.at)[c], (double *)dweight.at + c,
                          (double *)dbias.at + c);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"forward", forward, METH_VARARGS,
     "forward(itemsize, channels, samples, eps, x, weight or None, bias or None, y, mean, var, part, parts); mean and "
     "var are float64"},
    {"backward", backward, METH_VARARGS,
     "backward(itemsize, channels, samples, eps, g, x, weight or None, mean, var, dx or None, dweight, dbias, part, "
     "parts); mean, var, dweight and dbias are float64"},
    ISA_FUNCTIONS,
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "sparseflow.sparse._norm", .m_doc = "Batch normalisation; see the source.",
    .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__norm(void)
{
    isa = &isas[best_isa()];
    return PyModule_Create(&definition);
}
