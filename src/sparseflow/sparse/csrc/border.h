/* What the C modules share: the border to Python, and the choice of instruction set. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")

/* Keeps v in a register: gcc would make each of its uses an operand in memory, and load it as often. */
#if defined(__x86_64__)
#define HOLD(v) __asm__("" : "+v"(v))
#else
#define HOLD(v) ((void)(v))
#endif

/* Orders what was written past the caches before all that follows. */
#if defined(__x86_64__)
#define STREAMED() __asm__ volatile("sfence" ::: "memory")
#else
#define STREAMED() ((void)0)
#endif

static inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

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

/* The best instruction set of this processor, as an index into {portable, avx2, avx512}. */
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

/* A module's table of Isa {name, f32, f64}, from a macro that lists the kernels of one suffix. */
#if defined(__x86_64__)
#define EVERY_ISA(KERNELS)                                                                                            \
    {                                                                                                                 \
        {"portable", KERNELS(f32_base), KERNELS(f64_base)}, {"avx2", KERNELS(f32_avx2), KERNELS(f64_avx2)},           \
        {                                                                                                             \
            "avx512", KERNELS(f32_avx512), KERNELS(f64_avx512)                                                        \
        }                                                                                                             \
    }
#else
#define EVERY_ISA(KERNELS) {{"portable", KERNELS(f32_base), KERNELS(f64_base)}}
#endif

/* The one in use, which tests may change. */
#define ISA_CHOICE(isas)                                                                                              \
    static const Isa *isa = isas;                                                                                     \
    static PyObject *use_isa(PyObject *module, PyObject *args)                                                        \
    {                                                                                                                 \
        const char *name;                                                                                             \
        if (!PyArg_ParseTuple(args, "s", &name))                                                                      \
            return NULL;                                                                                              \
        for (int i = 0; i <= best_isa(); i++)                                                                         \
            if (!strcmp(isas[i].name, name)) {                                                                        \
                isa = &isas[i];                                                                                       \
                Py_RETURN_NONE;                                                                                       \
            }                                                                                                         \
        return PyErr_Format(PyExc_ValueError, "this processor has no %s kernels", name);                              \
    }                                                                                                                 \
    static PyObject *get_isa(PyObject *module, PyObject *none) { return PyUnicode_FromString(isa->name); }

#define ISA_FUNCTIONS                                                                                                 \
    {"isa", get_isa, METH_NOARGS, "the instruction set in use"},                                                      \
    {                                                                                                                 \
        "use_isa", use_isa, METH_VARARGS, "use_isa(name): portable, avx2 or avx512, for tests; the best is default"   \
    }
