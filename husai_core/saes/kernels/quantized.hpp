// The search for the largest latents by integers, where the processor multiplies bytes.
#pragma once
#ifdef __AVX2__

#include "selection.hpp"

namespace {

// Integers in place of weights and rows, from -63 to 63 where two pairs of products must fit into 16 bits.
// A dither, random numbers from -1/2 to 1/2, is added to each column before rounding and taken off the products, which
// makes rounding errors uniform and independent whatever the data (Schuchman 1964).
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define MULTIPLIES_BYTES
constexpr int64_t LEVELS = 126, ZERO = 128;
#else
constexpr int64_t LEVELS = 62, ZERO = 64;
#endif
constexpr int64_t LATENTS = 8, ROWS = 6, DEPTH = 8, BLOCK_ROWS = 48;
constexpr float OUTLIER = 12;  // times the root mean square

float largest_magnitude(const float* row, int64_t d) {
    return largest(row, d, [](Lanes value) { return value < 0 ? -value : value; });
}

// Pre-activations of ROWS rows and LATENTS latents from their integer products.
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
    __m256i total[ROWS];
    for (auto& row : total) row = _mm256_setzero_si256();
    for (int64_t c = 0; c < depth; c += DEPTH) {
        const auto* at = reinterpret_cast<const __m256i*>(packed + c * LATENTS);
        const __m256i first = _mm256_load_si256(at), second = _mm256_load_si256(at + 1);
        for (int64_t r = 0; r < ROWS; ++r) {
            const __m256i left = four_bytes(rows + r * depth + c), right = four_bytes(rows + r * depth + c + 4);
#ifdef MULTIPLIES_BYTES
            total[r] = _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(total[r], left, first), right, second);
#else
            const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(left, first), _mm256_maddubs_epi16(right, second));
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
        }
    }
    for (int64_t r = 0; r < ROWS; ++r) tile.write(r, total[r]);
}

// A dictionary as integers; n is a multiple of LATENTS.
struct QuantizedEncoder {
    const int8_t* packed;
    const float *row_dither, *dither;  // of the columns of rows and of latents
    const float *scale, *correction;  // of each latent; correction undoes the dither and that bytes count from ZERO
    float worst_scale, worst_norm;
    const int32_t* imprecise;  // latents that integers represent badly
    int64_t imprecise_count, n, d, depth;

    // Distance of rows in memory: no power of two, or they would compete for the same lines of the cache.
    int64_t stride() const { return n + 24; }
};

// Rows of x as integers, their pre-activations by them, and how far those may be off.
struct QuantizedRows {
    std::vector<uint8_t> bytes;
    std::vector<float> z, scale, correction, norm;

    QuantizedRows(const QuantizedEncoder& dictionary)
        : bytes(BLOCK_ROWS * dictionary.depth),
          z(BLOCK_ROWS * dictionary.stride()),
          scale(BLOCK_ROWS),
          correction(BLOCK_ROWS),
          norm(BLOCK_ROWS) {}

    void read(const float* x, int64_t count, const QuantizedEncoder& w) {
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
    bool is_imprecise(int64_t r, const QuantizedEncoder& w) const {
        return scale[r] * LEVELS > OUTLIER * std::sqrt(norm[r] / static_cast<float>(w.d));
    }

    // Six standard deviations of the sum of the rounding errors, which are uniform and independent.
    float error(int64_t r, const QuantizedEncoder& w) const {
        return 6 * std::sqrt((scale[r] * scale[r] * w.worst_norm + w.worst_scale * w.worst_scale * norm[r]) / 12);
    }

    void score(int64_t count, const QuantizedEncoder& w, const float* bias) {
        for (int64_t j = 0; j < w.n; j += LATENTS)
            for (int64_t r = 0; r < count; r += ROWS) {
                const Tile tile{&scale[r], &correction[r], w.correction + j, w.scale + j, bias + j, &z[r * w.stride() + j],
                                w.stride()};
                multiply(bytes.data() + r * w.depth, w.packed + j * w.depth, w.depth, tile);
            }
    }

    // Exact pre-activations where integers are not precise enough.
    void correct(const float* x, int64_t count, const QuantizedEncoder& w, const float* encoder, const float* bias) {
        for (int64_t r = 0; r < count; ++r) {
            const bool all = is_imprecise(r, w);
            for (int64_t i = 0; i < (all ? w.n : w.imprecise_count); ++i) {
                const int64_t j = all ? i : w.imprecise[i];
                z[r * w.stride() + j] = dot(x + r * w.d, encoder + j * w.d, w.d) + bias[j];
            }
        }
    }
};

}  // namespace

extern "C" {

int64_t levels() { return LEVELS; }

// The encoder [n, d] as integers: packed [n * depth] in blocks of latents, scale and correction [n].
void pack(const float* encoder, const float* row_dither, const float* dither, int64_t n, int64_t d, int64_t depth,
          int8_t* packed, float* scale, float* correction, float* norms, int64_t threads) {
    parallel(n / LATENTS, threads, [=](int64_t start, int64_t end) {
        std::vector<int8_t> integers(depth, 0);
        for (int64_t j = start * LATENTS; j < end * LATENTS; ++j) {
            const float* row = encoder + j * d;
            scale[j] = largest_magnitude(row, d) / LEVELS;
            norms[j] = dot(row, row, d);
            const float factor = scale[j] > 0 ? 1 / scale[j] : 0;
            correction[j] = 0;
            for (int64_t c = 0; c < d; ++c) {
                const int32_t number = static_cast<int32_t>(row[c] * factor + dither[c] + (ZERO + 0.5f)) - ZERO;
                integers[c] = static_cast<int8_t>(number);
                const float from_zero = ZERO + row_dither[c];
                correction[j] += from_zero * static_cast<float>(number) - row_dither[c] * dither[c];
            }
            int8_t* to = packed + j / LATENTS * LATENTS * depth + j % LATENTS * 4;
            for (int64_t c = 0; c < depth; c += 4) std::memcpy(to + c * LATENTS, integers.data() + c, 4);
        }
    });
}

// `top` of x [rows, d] for one encoder [n, d]: integers choose candidates, of which fp32 takes the largest.
void quantized_top(const float* x, const float* encoder, const float* bias, const float* row_dither, const float* dither,
                   const int8_t* packed, const float* scale, const float* correction, float worst_scale, float worst_norm,
                   const int32_t* imprecise, int64_t imprecise_count, int64_t rows, int64_t d, int64_t depth, int64_t n,
                   int64_t k, int32_t offset, float* values, int32_t* latents, int64_t threads) {
    const QuantizedEncoder w{packed,     row_dither, dither,          scale, correction, worst_scale,
                             worst_norm, imprecise,  imprecise_count, n,     d,          depth};
    parallel(rows, threads, [=](int64_t start, int64_t end) {
        QuantizedRows block(w);
        Search search(n, k);
        for (int64_t from = start; from < end; from += BLOCK_ROWS) {
            const int64_t count = std::min(BLOCK_ROWS, end - from);
            block.read(x + from * d, count, w);
            block.score(count, w, bias);
            block.correct(x + from * d, count, w, encoder, bias);
            for (int64_t r = 0; r < count; ++r) {
                const float error = block.is_imprecise(r, w) ? 0 : block.error(r, w);
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
}

#endif
