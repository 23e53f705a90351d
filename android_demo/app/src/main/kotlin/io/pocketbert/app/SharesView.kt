/* A bar in which each label has its share of the probability, in its colour, at its place. */
package io.pocketbert.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.util.AttributeSet
import android.view.View
import io.pocketbert.core.Prediction

class SharesView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val paint = Paint(Paint.ANTI_ALIAS_FLAG)
    private val outline = Path()
    private val track = context.getColor(R.color.line)
    private var shares = FloatArray(0)
    private var colors = IntArray(0)

    /** Shows an answer; without one only the track. */
    fun show(answer: List<Prediction>?, labels: List<String>, words: Words) {
        shares = FloatArray(labels.size)
        answer?.forEach { if (it.label in labels) shares[labels.indexOf(it.label)] = it.score }
        val sum = shares.sum() // several labels can hold at once: then it is not 1
        if (sum > 1) shares.indices.forEach { shares[it] /= sum }
        if (colors.size != labels.size) colors = IntArray(labels.size) { words.color(it) }
        invalidate()
    }

    override fun onSizeChanged(width: Int, height: Int, oldWidth: Int, oldHeight: Int) {
        outline.reset()
        outline.addRoundRect(0f, 0f, width.toFloat(), height.toFloat(), height / 2f, height / 2f, Path.Direction.CW)
    }

    override fun onDraw(canvas: Canvas) {
        canvas.clipPath(outline)
        if (layoutDirection == LAYOUT_DIRECTION_RTL) canvas.scale(-1f, 1f, width / 2f, 0f)
        canvas.drawColor(track)
        var start = 0f
        shares.forEachIndexed { label, share ->
            paint.color = colors[label]
            canvas.drawRect(start, 0f, start + share * width, height.toFloat(), paint)
            start += share * width
        }
    }
}
