// The kernels of `Kernels` that run over rows on the CPU; `cpp.py` builds, loads and describes them.
// Every output element is written by one thread in a fixed order, so that results do not depend on their number.

#include "quantized.hpp"
#include "selection.hpp"

extern "C" {

// The k largest of each row of z [rows, n]: values and latents [rows, k].
void largest_of(const float* z, int64_t rows, int64_t n, int64_t k, float* values, int32_t* latents, int64_t threads) {
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        Search search(n, k);
        for (int64_t r = start; r < end; ++r)
            search.write(search.candidates(z + r * n, 0), 0, values + r * k, latents + r * k);
    });
}

// How many entries of each row of z [rows, members, n] lie above its member's threshold: counts [members, rows].
void count_above(const float* z, int64_t rows, int64_t members, int64_t n, const float* threshold, int32_t* counts,
                 int64_t threads) {
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        for (int64_t r = start; r < end; ++r)
            for (int64_t m = 0; m < members; ++m) {
                const float* row = z + (r * members + m) * n;
                const float bound = threshold[m];
                int32_t count = 0;
                for (int64_t j = 0; j < n; ++j) count += row[j] > bound;
                counts[m * rows + r] = count;
            }
    });
}

// Those entries, the ones of member m and row r from starts[m * rows + r] on.
void fill_above(const float* z, int64_t rows, int64_t members, int64_t n, const float* threshold, const int64_t* starts,
                int32_t offset, float* values, int32_t* latents, int64_t threads) {
    constexpr int64_t width = 64;
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        for (int64_t r = start; r < end; ++r)
            for (int64_t m = 0; m < members; ++m) {
                const float* row = z + (r * members + m) * n;
                const float bound = threshold[m];
                int64_t to = starts[m * rows + r];
                for (int64_t j = 0; j < n; j += width) {
                    const int64_t stop = std::min(n, j + width);
                    bool any = false;
                    for (int64_t i = j; i < stop; ++i) any |= row[i] > bound;
                    if (!any) continue;
                    for (int64_t i = j; i < stop; ++i)
                        if (row[i] > bound) {
                            values[to] = row[i];
                            latents[to++] = offset + static_cast<int32_t>(m * n + i);
                        }
                }
            }
    });
}

void decode(const float* values, const int32_t* latents, const int32_t* starts, const float* dictionary, int64_t rows,
            int64_t d, float* out, int64_t threads) {
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        for (int64_t r = start; r < end; ++r) {
            std::memset(out + r * d, 0, d * sizeof(float));
            for (int32_t e = starts[r]; e < starts[r + 1]; ++e)
                if (values[e] != 0) add(out + r * d, values[e], dictionary + latents[e] * d, d);
        }
    });
}

void dots(const float* rows, const int32_t* latents, const int32_t* starts, const float* dictionary, int64_t count,
          int64_t d, float* out, int64_t threads) {
    parallel(count, threads, [=](int64_t start, int64_t end) {
        for (int64_t r = start; r < end; ++r)
            for (int32_t e = starts[r]; e < starts[r + 1]; ++e)
                out[e] = dot(rows + r * d, dictionary + latents[e] * d, d);
    });
}

// A stable counting sort of `count` entries by latent: order [count], starts [n + 1].
void transpose(const int32_t* latents, int64_t count, int64_t n, int32_t* order, int32_t* starts) {
    std::fill(starts, starts + n + 1, 0);
    for (int64_t e = 0; e < count; ++e) ++starts[latents[e] + 1];
    for (int64_t j = 0; j < n; ++j) starts[j + 1] += starts[j];
    std::vector<int32_t> next(starts, starts + n);
    for (int64_t e = 0; e < count; ++e) order[next[latents[e]]++] = static_cast<int32_t>(e);
}

void outer(const float* weights, const int32_t* source, const int32_t* starts, const float* rows, int64_t latents,
           int64_t d, float* out, int64_t threads) {
    parallel(latents, threads, [=](int64_t start, int64_t end) {
        for (int64_t j = start; j < end; ++j) {
            std::memset(out + j * d, 0, d * sizeof(float));
            for (int32_t e = starts[j]; e < starts[j + 1]; ++e)
                if (weights[e] != 0) add(out + j * d, weights[e], rows + source[e] * d, d);
        }
    });
}

// Adam on rows of d weights; with `unit`, the gradient loses its component along the row first and the row's norm is 1 after.
void adam(float* weights, float* gradient, float* first, float* second, int64_t rows, int64_t d, float beta1,
          float beta2, float rate, float correction, float epsilon, bool unit, int64_t threads) {
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        for (int64_t r = start; r < end; ++r) {
            float *w = weights + r * d, *g = gradient + r * d, *m = first + r * d, *v = second + r * d;
            if (unit) add(g, -dot(g, w, d), w, d);
            for (int64_t c = 0; c < d; ++c) {
                m[c] += (1 - beta1) * (g[c] - m[c]);
                v[c] = beta2 * v[c] + (1 - beta2) * g[c] * g[c];
                w[c] -= rate * m[c] / (std::sqrt(v[c] * correction) + epsilon);
            }
            if (unit) {
                const float scale = 1 / std::sqrt(dot(w, w, d));
                for (int64_t c = 0; c < d; ++c) w[c] *= scale;
            }
        }
    });
}
}
