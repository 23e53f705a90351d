/* Draws the screens, real pixels, into target/screenshots: look at them. */
package io.pocketbert.app

import android.graphics.Bitmap
import io.pocketbert.chat.ALBERT
import io.pocketbert.chat.CHOICES
import io.pocketbert.chat.FakeModels
import io.pocketbert.core.BundleException
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowDialog
import kotlin.test.assertTrue

@RunWith(PhoneRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], application = TestApplication::class, qualifiers = "w411dp-h891dp-xhdpi")
class ScreenshotsTest {
    @Before
    fun fakeModels() {
        TestApplication.models = { FakeModels() }
    }

    private fun conversation() = Phone().start().bars(top = 24, bottom = 16)
        .say("what a good film, i laughed the whole way through")
        .say("the soup was cold and the waiter rude")
        .type("the dessert was good though 😋")

    private fun sheet(phone: Phone): android.view.View {
        phone.chat.showSheet(true)
        phone.settle { ShadowDialog.getLatestDialog()?.isShowing == true && phone.chat.state.value.memory != null }
        return ShadowDialog.getLatestDialog().window!!.decorView.also { phone.bars(top = 24, bottom = 16, view = it) }
    }

    @Test
    fun light() = conversation().shoot("light")

    @Test
    @Config(qualifiers = "+night")
    fun dark() = conversation().shoot("dark")

    @Test
    fun empty() = Phone().start().bars(top = 24, bottom = 16).shoot("empty")

    @Test
    fun keyboard() = conversation().bars(top = 24, bottom = 16, keyboard = 300).shoot("keyboard")

    @Test
    @Config(fontScale = 2f)
    fun fontScaleTwo() = conversation().shoot("font-scale-2")

    @Test
    @Config(qualifiers = "w891dp-h411dp-land-xhdpi")
    fun landscape() = conversation().shoot("landscape")

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-xhdpi")
    fun arabic() = Phone().start().bars(top = 24, bottom = 16)
        .say("كان الفيلم رائعًا، ضحكت طوال الوقت")
        .say("the soup was cold 🥶 and the waiter rude")
        .type("شكرًا، كان يومًا good").shoot("arabic")

    @Test
    fun fallback() {
        val reason = BundleException("model.tflite is not the file that was exported: copy or export the bundle again")
        TestApplication.models = { FakeModels(broken = mutableMapOf(ALBERT to reason)) }
        conversation().shoot("fallback")
    }

    @Test
    fun error() {
        val reason = BundleException("there is no room for the model: 68.2 MB are needed, 12.9 MB are free")
        TestApplication.models = { FakeModels(broken = CHOICES.associateWith { reason }.toMutableMap()) }
        Phone().start().bars(top = 24, bottom = 16).type("is anybody there?").shoot("error")
    }

    @Test
    fun longMessages() = Phone().start().bars(top = 24, bottom = 16)
        .say("good ".repeat(20_000)).type("a text that is longer than the field is wide grows it, up to five lines, and then it scrolls ".repeat(4))
        .shoot("long")

    @Test
    fun theSheet() = conversation().let { it.shoot("sheet", sheet(it)) }

    @Test
    @Config(qualifiers = "+night")
    fun theSheetInTheDark() = conversation().let { it.shoot("sheet-dark", sheet(it)) }

    @Test
    @Config(fontScale = 2f)
    fun theSheetAtFontScaleTwo() {
        val reason = BundleException("model.tflite is not the file that was exported: copy or export the bundle again")
        TestApplication.models = { FakeModels(broken = mutableMapOf(ALBERT to reason)) }
        conversation().let { it.shoot("sheet-font-scale-2", sheet(it)) }
    }

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-xhdpi")
    fun theSheetInArabic() = conversation().let { it.shoot("sheet-arabic", sheet(it)) }

    @Test
    fun aPictureHasPixels() {
        val picture: Bitmap = conversation().picture()
        val colors = (0 until picture.height step 7).flatMap { y -> (0 until picture.width step 7).map { picture.getPixel(it, y) } }
        assertTrue(colors.distinct().size > 20, "drawn, not blank")
    }
}
