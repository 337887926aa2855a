/* The border's check of a pattern: nothing is read from it before its own index is known to be good. */

/* Whether `starts` (columns + 1) rises from 0 to n, and each column's outs rise strictly within [0, n_out). */
static int is_pattern(const int32_t *starts, const int32_t *outs, size_t columns, size_t n_out, size_t n)
{
    if (starts[0] != 0 || (size_t)starts[columns] != n)
        return 0;
    /* All starts first: an entry may only be read once its column is known to lie within them. */
    for (size_t c = 0; c < columns; c++)
        if (starts[c] > starts[c + 1])
            return 0;
    for (size_t c = 0; c < columns; c++) {
        int64_t before = -1;
        for (int32_t k = starts[c]; k < starts[c + 1]; before = outs[k++])
            if (outs[k] <= before || (size_t)outs[k] >= n_out)
                return 0;
    }
    return 1;
}
