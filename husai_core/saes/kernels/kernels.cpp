// The kernels of `Kernels` that run over rows on the CPU; `compiled.py` builds, loads and describes them.
// Every output element is written by one thread in a fixed order, so that results do not depend on their number.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

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

// How many of the values are at least `bound`.
int64_t count_from(const float* values, int64_t count, float bound) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; ++i) found += values[i] >= bound;
    return found;
}

// A number that k of the values reach; after enough halvings no more than k do, but for those that equal it.
float reached_by(int64_t k, const float* values, int64_t count, int64_t halvings) {
    float low = FLT_MAX, high = -FLT_MAX;
    for (int64_t i = 0; i < count; ++i) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    low = std::max(low, -FLT_MAX), high = std::min(high, FLT_MAX);
    if (count_from(values, count, low) < k) return -INFINITY;
    if (count_from(values, count, high) >= k) return high;
    for (int64_t i = 0; i < halvings; ++i) {
        const float middle = low / 2 + high / 2;
        if (middle <= low || middle >= high) break;
        const int64_t reached = count_from(values, count, middle);
        (reached >= k ? low : high) = middle;
        if (reached == k) break;
    }
    return low;
}

constexpr int64_t ROUGHLY = 10, EXACTLY = 1000;  // halvings

struct Search {
    int64_t n, k, size, groups;
    std::vector<float> maxima, values;
    std::vector<int32_t> latents;

    Search(int64_t n, int64_t k)
        : n(n), k(k), size(group_size(n, k)), groups(n / size), maxima(groups), values(n), latents(n) {}

    // Entries of z that are larger than the k-th largest less `slack`, in order; they are the first of `values`.
    int64_t candidates(const float* z, float slack) {
        const int64_t count = collect(z, kth_maximum(z) - slack);
        return slack == 0 ? count : keep(count, reached_by(k, values.data(), count, ROUGHLY) - slack);
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
                values[count] = z[at];
                latents[count++] = static_cast<int32_t>(at);
            }
        }
#endif
        for (; i < n; ++i)
            if (z[i] >= bound) {
                values[count] = z[i];
                latents[count++] = static_cast<int32_t>(i);
            }
        return count;
    }

    // Those of the first `count` found that are at least `bound`.
    int64_t keep(int64_t count, float bound) {
        int64_t kept = 0;
        for (int64_t i = 0; i < count; ++i) {
            values[kept] = values[i];
            latents[kept] = latents[i];
            kept += values[i] >= bound;
        }
        return kept;
    }

    // At most the k-th largest entry of z.
    float kth_maximum(const float* z) {
        std::memcpy(maxima.data(), z, groups * sizeof(float));
        for (int64_t i = 1; i < size; ++i) {
            const float* part = z + i * groups;
            for (int64_t j = 0; j < groups; ++j) maxima[j] = part[j] > maxima[j] ? part[j] : maxima[j];
        }
        return reached_by(k, maxima.data(), groups, ROUGHLY);
    }

    // The k largest of the first `count` found, of equal ones the first; NaN where there are fewer, as the row holds NaN.
    void write(int64_t count, int32_t offset, float* to_values, int32_t* to_latents) {
        const float least = reached_by(k, values.data(), count, EXACTLY);
        int64_t above = 0, to = 0;
        for (int64_t i = 0; i < count; ++i) above += values[i] > least;
        for (int64_t i = 0, equal = k - above; i < count && to < k; ++i) {
            if (!(values[i] > least || (values[i] == least && equal-- > 0))) continue;
            to_values[to] = values[i];
            to_latents[to++] = offset + latents[i];
        }
        std::fill(to_values + to, to_values + k, NAN);
        std::fill(to_latents + to, to_latents + k, offset);
    }
};

using Lanes = float __attribute__((vector_size(32)));

Lanes lanes(const float* at) {
    Lanes found;
    std::memcpy(&found, at, sizeof found);
    return found;
}

float dot(const float* a, const float* b, int64_t d) {
    Lanes sums[4] = {};
    int64_t c = 0;
    for (; c + 32 <= d; c += 32)
        for (int64_t i = 0; i < 4; ++i) sums[i] += lanes(a + c + 8 * i) * lanes(b + c + 8 * i);
    const Lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float sum = 0;
    for (int64_t i = 0; i < 8; ++i) sum += all[i];
    for (; c < d; ++c) sum += a[c] * b[c];
    return sum;
}

void add(float* out, float weight, const float* row, int64_t d) {
    for (int64_t c = 0; c < d; ++c) out[c] += weight * row[c];
}

#ifdef __AVX2__
// Whole numbers from -63 to 63 in place of weights and rows: of these, two pairs of products fit into 16 bits.
// A dither, random numbers from -1/2 to 1/2, is added to each column before rounding and taken off the products, which
// makes rounding errors uniform and independent whatever the data (Schuchman 1964).
constexpr int64_t LATENTS = 8, ROWS = 6, DEPTH = 8, BLOCK_ROWS = 48, LEVELS = 62, ZERO = 64;
constexpr float OUTLIER = 12;  // times the root mean square

float largest_magnitude(const float* row, int64_t d) {
    float most = 0;
    for (int64_t c = 0; c < d; ++c) {
        const float size = std::fabs(row[c]);
        most = size > most ? size : most;
    }
    return most;
}

// Pre-activations of ROWS rows and LATENTS latents from their products in whole numbers.
struct Tile {
    const float *row_scale, *row_correction, *correction, *scale, *bias;
    float* z;
    int64_t stride;

    void write(int64_t r, __m256i sums) const {
        const __m256 offset = _mm256_add_ps(_mm256_set1_ps(row_correction[r]), _mm256_loadu_ps(correction));
        const __m256 exact = _mm256_sub_ps(_mm256_cvtepi32_ps(sums), offset);
        const __m256 unit = _mm256_mul_ps(_mm256_set1_ps(row_scale[r]), _mm256_loadu_ps(scale));
        _mm256_storeu_ps(z + r * stride, _mm256_add_ps(_mm256_mul_ps(exact, unit), _mm256_loadu_ps(bias)));
    }
};

__m256i four_bytes(const uint8_t* from) {
    int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

// ROWS rows of bytes [depth] times LATENTS packed latents [depth / 4][LATENTS][4].
void multiply(const uint8_t* rows, const int8_t* packed, int64_t depth, const Tile& tile) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[ROWS];
    for (auto& row : total) row = _mm256_setzero_si256();
    for (int64_t c = 0; c < depth; c += DEPTH) {
        const auto* at = reinterpret_cast<const __m256i*>(packed + c * LATENTS);
        const __m256i first = _mm256_load_si256(at), second = _mm256_load_si256(at + 1);
        for (int64_t r = 0; r < ROWS; ++r) {
            const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(four_bytes(rows + r * depth + c), first),
                                                   _mm256_maddubs_epi16(four_bytes(rows + r * depth + c + 4), second));
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int64_t r = 0; r < ROWS; ++r) tile.write(r, total[r]);
}

// A dictionary in whole numbers; n is a multiple of LATENTS.
struct Coarse {
    const int8_t* packed;
    const float *row_dither, *dither;  // of the columns of rows and of latents
    const float *scale, *correction;  // of each latent; correction undoes the dither and that bytes count from ZERO
    float worst_scale, worst_norm;
    const int32_t* rough;  // latents that whole numbers render badly
    int64_t rough_count, n, d, depth;

    // Distance of rows in memory: no power of two, or they would compete for the same lines of the cache.
    int64_t stride() const { return n + 24; }
};

// Rows of x in whole numbers, their pre-activations by them, and how far those may be off.
struct Block {
    std::vector<uint8_t> bytes;
    std::vector<float> z, scale, correction, norm;

    Block(const Coarse& dictionary)
        : bytes(BLOCK_ROWS * dictionary.depth),
          z(BLOCK_ROWS * dictionary.stride()),
          scale(BLOCK_ROWS),
          correction(BLOCK_ROWS),
          norm(BLOCK_ROWS) {}

    void read(const float* x, int64_t count, const Coarse& w) {
        std::fill(bytes.begin(), bytes.end(), ZERO);
        for (int64_t r = 0; r < count; ++r) {
            const float* row = x + r * w.d;
            scale[r] = largest_magnitude(row, w.d) / LEVELS;
            const float factor = scale[r] > 0 ? 1 / scale[r] : 0;
            uint8_t* to = bytes.data() + r * w.depth;
            for (int64_t c = 0; c < w.d; ++c)
                to[c] = static_cast<uint8_t>(row[c] * factor + w.row_dither[c] + (ZERO + 0.5f));
            correction[r] = 0;
            for (int64_t c = 0; c < w.d; ++c) correction[r] += (static_cast<float>(to[c]) - ZERO) * w.dither[c];
            norm[r] = dot(row, row, w.d);
        }
    }

    // Whether rounding a row leaves little of it but its largest entry.
    bool is_rough(int64_t r, const Coarse& w) const {
        return scale[r] * LEVELS > OUTLIER * std::sqrt(norm[r] / static_cast<float>(w.d));
    }

    // Six standard deviations of the sum of the rounding errors, which are uniform and independent.
    float error(int64_t r, const Coarse& w) const {
        return 6 * std::sqrt((scale[r] * scale[r] * w.worst_norm + w.worst_scale * w.worst_scale * norm[r]) / 12);
    }

    void score(int64_t count, const Coarse& w, const float* bias) {
        for (int64_t j = 0; j < w.n; j += LATENTS)
            for (int64_t r = 0; r < count; r += ROWS) {
                const Tile tile{&scale[r], &correction[r], w.correction + j, w.scale + j, bias + j, &z[r * w.stride() + j],
                                w.stride()};
                multiply(bytes.data() + r * w.depth, w.packed + j * w.depth, w.depth, tile);
            }
    }

    // Exact pre-activations where whole numbers are not to be trusted.
    void correct(const float* x, int64_t count, const Coarse& w, const float* encoder, const float* bias) {
        for (int64_t r = 0; r < count; ++r) {
            const bool all = is_rough(r, w);
            for (int64_t i = 0; i < (all ? w.n : w.rough_count); ++i) {
                const int64_t j = all ? i : w.rough[i];
                z[r * w.stride() + j] = dot(x + r * w.d, encoder + j * w.d, w.d) + bias[j];
            }
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
void pack(const float* encoder, const float* row_dither, const float* dither, int64_t n, int64_t d, int64_t depth,
          int8_t* packed, float* scale, float* correction, float* norms, int64_t threads) {
    parallel(n / LATENTS, threads, [=](int64_t start, int64_t end) {
        std::vector<int8_t> whole(depth, 0);
        for (int64_t j = start * LATENTS; j < end * LATENTS; ++j) {
            const float* row = encoder + j * d;
            scale[j] = largest_magnitude(row, d) / LEVELS;
            norms[j] = dot(row, row, d);
            const float factor = scale[j] > 0 ? 1 / scale[j] : 0;
            correction[j] = 0;
            for (int64_t c = 0; c < d; ++c) {
                const int32_t number = static_cast<int32_t>(row[c] * factor + dither[c] + (ZERO + 0.5f)) - ZERO;
                whole[c] = static_cast<int8_t>(number);
                const float from_zero = ZERO + row_dither[c];
                correction[j] += from_zero * static_cast<float>(number) - row_dither[c] * dither[c];
            }
            int8_t* to = packed + j / LATENTS * LATENTS * depth + j % LATENTS * 4;
            for (int64_t c = 0; c < depth; c += 4) std::memcpy(to + c * LATENTS, whole.data() + c, 4);
        }
    });
}

// `top` of x [rows, d] for one encoder [n, d]: whole numbers choose candidates, of which fp32 takes the largest.
void coarse_top(const float* x, const float* encoder, const float* bias, const float* row_dither, const float* dither,
                const int8_t* packed, const float* scale, const float* correction, float worst_scale, float worst_norm,
                const int32_t* rough, int64_t rough_count, int64_t rows, int64_t d, int64_t depth, int64_t n, int64_t k,
                int32_t offset, float* values, int32_t* latents, int64_t threads) {
    const Coarse w{packed, row_dither, dither, scale, correction, worst_scale, worst_norm, rough, rough_count, n, d, depth};
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        Block block(w);
        Search search(n, k);
        for (int64_t from = start; from < end; from += BLOCK_ROWS) {
            const int64_t count = std::min(BLOCK_ROWS, end - from);
            block.read(x + from * d, count, w);
            block.score(count, w, bias);
            block.correct(x + from * d, count, w, encoder, bias);
            for (int64_t r = 0; r < count; ++r) {
                const float error = block.is_rough(r, w) ? 0 : block.error(r, w);
                const int64_t held = error < INFINITY ? search.candidates(&block.z[r * w.stride()], error) : 0;
                for (int64_t i = 0; i < held; ++i) {
                    const int64_t j = search.latents[i];
                    search.values[i] = dot(x + (from + r) * d, encoder + j * d, d) + bias[j];
                }
                search.write(held, offset, values + (from + r) * k, latents + (from + r) * k);
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
