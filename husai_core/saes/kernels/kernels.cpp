// The kernels of `Kernels` that run over rows on the CPU; `compiled.py` builds, loads and describes them.
// Every output element is written by one thread in a fixed order, so that results do not depend on their number.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

struct Entry {
    float value;
    int32_t latent;
};

bool before(const Entry& a, const Entry& b) {
    return a.value > b.value || (a.value == b.value && a.latent < b.latent);
}

// body(first, last) on `threads` consecutive ranges of 0 … count - 1.
template <class Body>
void parallel(int64_t count, int64_t threads, Body body) {
    threads = std::max<int64_t>(1, std::min(threads, count));
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(body, count * i / threads, count * (i + 1) / threads);
    body(int64_t{0}, count / threads);
    for (auto& other : others) other.join();
}

// Entries i * groups + j for all i form group j. Groups of about 16 pay if there are many more groups than k.
int64_t group_size(int64_t n, int64_t k) {
    int64_t size = 1;
    while (size < 16 && n % (2 * size) == 0 && n / (2 * size) >= 4 * k) size *= 2;
    return size;
}

struct Search {
    int64_t n, k, size, groups;
    std::vector<float> maxima, ranked;
    std::vector<Entry> found;

    Search(int64_t n, int64_t k)
        : n(n), k(k), size(group_size(n, k)), groups(n / size), maxima(groups), ranked(groups), found(n) {}

    // The k-th largest group maximum is at most the k-th largest entry: only entries from it on can be chosen.
    void row(const float* z, int32_t offset, float* values, int32_t* latents) {
        std::memcpy(maxima.data(), z, groups * sizeof(float));
        for (int64_t i = 1; i < size; ++i) {
            const float* part = z + i * groups;
            for (int64_t j = 0; j < groups; ++j) maxima[j] = part[j] > maxima[j] ? part[j] : maxima[j];
        }
        ranked = maxima;
        std::nth_element(ranked.begin(), ranked.begin() + (k - 1), ranked.end(), std::greater<float>());
        const float bound = ranked[k - 1];
        int64_t count = 0;
        for (int64_t j = 0; j < groups; ++j) {
            if (!(maxima[j] >= bound)) continue;
            for (int64_t i = j; i < n; i += groups)
                if (z[i] >= bound) found[count++] = {z[i], static_cast<int32_t>(i)};
        }
        if (count > k) std::nth_element(found.begin(), found.begin() + k, found.begin() + count, before);
        for (int64_t i = 0; i < k; ++i) {
            const bool real = i < count;  // fewer only where the row holds NaN
            values[i] = real ? found[i].value : NAN;
            latents[i] = offset + (real ? found[i].latent : 0);
        }
    }
};

float dot(const float* a, const float* b, int64_t d) {
    float sum = 0;
    for (int64_t c = 0; c < d; ++c) sum += a[c] * b[c];
    return sum;
}

void add(float* out, float weight, const float* row, int64_t d) {
    for (int64_t c = 0; c < d; ++c) out[c] += weight * row[c];
}

}  // namespace

extern "C" {

// z [rows, members, n]; values and latents [members, b, k], of which rows `first` … are written.
void top(const float* z, int64_t rows, int64_t members, int64_t n, int64_t k, int64_t b, int64_t first, int32_t offset,
         float* values, int32_t* latents, int64_t threads) {
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        Search search(n, k);
        for (int64_t r = start; r < end; ++r)
            for (int64_t m = 0; m < members; ++m) {
                const int64_t to = (m * b + first + r) * k;
                search.row(z + (r * members + m) * n, offset + static_cast<int32_t>(m * n), values + to, latents + to);
            }
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

// Adam on rows of d weights; with `unit`, the gradient's part along the row goes first and the row's norm is 1 after.
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
