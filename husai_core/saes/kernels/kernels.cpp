// The kernels of `Kernels` that run over rows on the CPU; `compiled.py` builds, loads and describes them.
// Every output element is written by one thread in a fixed order, so that results do not depend on their number.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

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

    // Entries of z that are larger than the k-th largest less `slack`, unordered; they are the first of `found`.
    int64_t candidates(const float* z, float slack) {
        const int64_t count = collect(z, kth_maximum(z) - slack);
        if (count <= k || slack == 0) return count;
        std::nth_element(found.begin(), found.begin() + (k - 1), found.begin() + count, before);
        const float least = found[k - 1].value - slack;
        return std::partition(found.begin() + k, found.begin() + count,
                              [=](const Entry& entry) { return entry.value >= least; }) -
               found.begin();
    }

    // Entries of z from `bound` on.
    int64_t collect(const float* z, float bound) {
        int64_t count = 0, i = 0;
#ifdef __AVX2__
        const __m256 least = _mm256_set1_ps(bound);
        for (; i + 8 <= n; i += 8) {
            uint32_t hits = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(z + i), least, _CMP_GE_OQ));
            for (; hits; hits &= hits - 1) {
                const int64_t at = i + __builtin_ctz(hits);
                found[count++] = {z[at], static_cast<int32_t>(at)};
            }
        }
#endif
        for (; i < n; ++i)
            if (z[i] >= bound) found[count++] = {z[i], static_cast<int32_t>(i)};
        return count;
    }

    // At most the k-th largest entry of z.
    float kth_maximum(const float* z) {
        std::memcpy(maxima.data(), z, groups * sizeof(float));
        for (int64_t i = 1; i < size; ++i) {
            const float* part = z + i * groups;
            for (int64_t j = 0; j < groups; ++j) maxima[j] = part[j] > maxima[j] ? part[j] : maxima[j];
        }
        ranked = maxima;
        std::nth_element(ranked.begin(), ranked.begin() + (k - 1), ranked.end(), std::greater<float>());
        return ranked[k - 1];
    }

    // The k largest of the first `count` found.
    void write(int64_t count, int32_t offset, float* values, int32_t* latents) {
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

#ifdef __AVX2__
// Whole numbers from -63 to 63 in place of weights and rows: of these, two pairs of products fit into 16 bits.
constexpr int64_t LATENTS = 8, ROWS = 6, DEPTH = 8, BLOCK_ROWS = 48, LEVELS = 63, ZERO = 64;
constexpr float OUTLIER = 12;  // times the root mean square

float largest_magnitude(const float* row, int64_t d) {
    float most = 0;
    for (int64_t c = 0; c < d; ++c) {
        const float size = std::fabs(row[c]);
        most = size > most ? size : most;
    }
    return most;
}

// ROWS rows of bytes [depth] times LATENTS packed latents [depth / 4][LATENTS][4]: sums [ROWS][LATENTS].
void multiply(const uint8_t* rows, const int8_t* packed, int64_t depth, int32_t* sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[ROWS];
    for (auto& row : total) row = _mm256_setzero_si256();
    for (int64_t c = 0; c < depth; c += DEPTH) {
        const auto* at = reinterpret_cast<const __m256i*>(packed + c * LATENTS);
        const __m256i first = _mm256_load_si256(at), second = _mm256_load_si256(at + 1);
        for (int64_t r = 0; r < ROWS; ++r) {
            int32_t bytes[2];
            std::memcpy(bytes, rows + r * depth + c, sizeof bytes);
            const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_set1_epi32(bytes[0]), first),
                                                   _mm256_maddubs_epi16(_mm256_set1_epi32(bytes[1]), second));
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int64_t r = 0; r < ROWS; ++r)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * LATENTS), total[r]);
}

// A dictionary in whole numbers; n is a multiple of LATENTS.
struct Coarse {
    const int8_t* packed;
    const float *scale, *correction;  // of each latent; correction undoes that rows are stored as bytes from 0
    const float *worst_scale, *worst_norm;  // of each member
    const int32_t* rough;  // latents that whole numbers render badly
    int64_t rough_count, n, d, depth;

    // Distance of rows in memory: no power of two, or they would compete for the same lines of the cache.
    int64_t stride() const { return n + 24; }
};

// Rows of x in whole numbers, their pre-activations by them, and how far those may be off.
struct Block {
    std::vector<uint8_t> bytes;
    std::vector<float> z, scale, norm;

    Block(const Coarse& dictionary)
        : bytes(BLOCK_ROWS * dictionary.depth), z(BLOCK_ROWS * dictionary.stride()), scale(BLOCK_ROWS), norm(BLOCK_ROWS) {}

    void read(const float* x, int64_t count, const Coarse& w) {
        std::fill(bytes.begin(), bytes.end(), ZERO);
        for (int64_t r = 0; r < count; ++r) {
            const float* row = x + r * w.d;
            scale[r] = largest_magnitude(row, w.d) / LEVELS;
            const float factor = scale[r] > 0 ? 1 / scale[r] : 0;
            uint8_t* to = bytes.data() + r * w.depth;
            for (int64_t c = 0; c < w.d; ++c) to[c] = static_cast<uint8_t>(row[c] * factor + (ZERO + 0.5f));
            norm[r] = dot(row, row, w.d);
        }
    }

    // Whether rounding a row leaves little of it but its largest entry.
    bool is_rough(int64_t r, const Coarse& w) const {
        return scale[r] * LEVELS > OUTLIER * std::sqrt(norm[r] / static_cast<float>(w.d));
    }

    // Rounding errors are uniform and nearly independent; six standard deviations of their sum.
    float error(int64_t r, int64_t member, const Coarse& w) const {
        const float of_latent = w.worst_scale[member];
        return 6 * std::sqrt((scale[r] * scale[r] * w.worst_norm[member] + of_latent * of_latent * norm[r]) / 12);
    }

    // Exact pre-activations where whole numbers are not to be trusted.
    void correct(const float* x, int64_t count, const Coarse& w, const float* encoder, const float* bias) {
        for (int64_t r = 0; r < count; ++r) {
            const bool all = is_rough(r, w);
            const int64_t last = all ? w.n : w.rough_count;
            for (int64_t i = 0; i < last; ++i) {
                const int64_t j = all ? i : w.rough[i];
                z[r * w.stride() + j] = dot(x + r * w.d, encoder + j * w.d, w.d) + bias[j];
            }
        }
    }

    void score(int64_t count, const Coarse& w, const float* bias) {
        int32_t sums[ROWS * LATENTS];
        for (int64_t j = 0; j < w.n; j += LATENTS)
            for (int64_t r = 0; r < count; r += ROWS) {
                multiply(bytes.data() + r * w.depth, w.packed + j * w.depth, w.depth, sums);
                for (int64_t i = 0; i < ROWS; ++i)
                    for (int64_t l = 0; l < LATENTS; ++l)
                        z[(r + i) * w.stride() + j + l] =
                            (static_cast<float>(sums[i * LATENTS + l]) - w.correction[j + l]) * scale[r + i] *
                                w.scale[j + l] +
                            bias[j + l];
            }
    }
};
#endif

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
                const int64_t count = search.candidates(z + (r * members + m) * n, 0);
                search.write(count, offset + static_cast<int32_t>(m * n), values + to, latents + to);
            }
    });
}

#ifdef __AVX2__
// The encoder [n, d] in whole numbers: packed [n * depth] in blocks of latents, scale and correction [n].
void pack(const float* encoder, int64_t n, int64_t d, int64_t depth, int8_t* packed, float* scale, float* correction,
          float* norms, int64_t threads) {
    parallel(n / LATENTS, threads, [=](int64_t start, int64_t end) {
        std::vector<int8_t> whole(depth, 0);
        for (int64_t j = start * LATENTS; j < end * LATENTS; ++j) {
            const float* row = encoder + j * d;
            scale[j] = largest_magnitude(row, d) / LEVELS;
            norms[j] = dot(row, row, d);
            const float factor = scale[j] > 0 ? 1 / scale[j] : 0;
            int32_t sum = 0;
            for (int64_t c = 0; c < d; ++c) {
                const int32_t number = static_cast<int32_t>(row[c] * factor + (ZERO + 0.5f)) - ZERO;
                whole[c] = static_cast<int8_t>(number);
                sum += number;
            }
            correction[j] = static_cast<float>(ZERO * sum);
            int8_t* to = packed + j / LATENTS * LATENTS * depth + j % LATENTS * 4;
            for (int64_t c = 0; c < depth; c += 4) std::memcpy(to + c * LATENTS, whole.data() + c, 4);
        }
    });
}

// `top` of x [rows, d] for `members` encoders [n, d]: whole numbers choose candidates, of which fp32 takes the largest.
void coarse_top(const float* x, const float* encoder, const float* bias, const int8_t* packed, const float* scale,
                const float* correction, const float* worst_scale, const float* worst_norm, const int32_t* rough,
                int64_t rough_count, int64_t rows, int64_t d, int64_t depth, int64_t members, int64_t n, int64_t k,
                int32_t offset, float* values, int32_t* latents, int64_t threads) {
    const Coarse w{packed, scale, correction, worst_scale, worst_norm, rough, rough_count, members * n, d, depth};
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        Block block(w);
        Search search(n, k);
        for (int64_t from = start; from < end; from += BLOCK_ROWS) {
            const int64_t count = std::min(BLOCK_ROWS, end - from);
            block.read(x + from * d, count, w);
            block.score(count, w, bias);
            block.correct(x + from * d, count, w, encoder, bias);
            for (int64_t m = 0; m < members; ++m)
                for (int64_t r = 0; r < count; ++r) {
                    const float error = block.is_rough(r, w) ? 0 : block.error(r, m, w);
                    const float* z = &block.z[r * w.stride() + m * n];
                    const int64_t held = error < INFINITY ? search.candidates(z, error) : 0;
                    for (int64_t i = 0; i < held; ++i) {
                        const int64_t j = m * n + search.found[i].latent;
                        search.found[i].value = dot(x + (from + r) * d, encoder + j * d, d) + bias[j];
                    }
                    const int64_t to = (m * rows + from + r) * k;
                    search.write(held, offset + static_cast<int32_t>(m * n), values + to, latents + to);
                }
        }
    });
}
#endif

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
